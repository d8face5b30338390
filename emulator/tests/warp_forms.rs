//! What the lanes of a warp do together, in every form: shuffles with segments and predicates, votes, matches,
//! reductions, elections; with full masks and with masks of a divergent part.

mod lanes;

use lanes::Random;
use lanes::warp::warp_for;

/// The members of a group: all, the even lanes, the lanes below 20, one lane.
const MASKS: [u32; 4] = [u32::MAX, 0x5555_5555, 0x000f_ffff, 0x0000_0100];

fn inputs(seed: u64, words: usize) -> [Vec<u64>; 32] {
    let mut random = Random(seed);
    std::array::from_fn(|_| (0..words).map(|_| random.next() & 0xffff_ffff).collect())
}

/// Runs a body for the lanes of a mask only; the others keep 0xdead in their results.
fn among(mask: u32, body: &str, words: &[Vec<u64>; 32], results: usize) -> Vec<Vec<u64>> {
    let blank: String = (0..results).map(|k| format!("mov.u32 %r{}, 0xdead;\n", 40 + k)).collect();
    let text = format!(
        "{blank}mov.u32 %r90, 1;\nshl.b32 %r91, %r90, %r99;\nand.b32 %r92, %r91, {mask};\nsetp.eq.u32 %p8, %r92, 0;\n@%p8 bra $OUT;\nmov.u32 %r93, {mask};\n{body}\n$OUT:"
    );
    warp_for(&text, words, results, false, 90)
}

fn check(mask: u32, body: &str, words: &[Vec<u64>; 32], results: usize, model: impl Fn(usize) -> Vec<u64>) {
    for (lane, got) in among(mask, body, words, results).iter().enumerate() {
        let expected = if mask >> lane & 1 != 0 { model(lane) } else { vec![0xdead; results] };
        assert_eq!(*got, expected, "{body}, mask {mask:x}, lane {lane}");
    }
}

fn members(mask: u32) -> impl Iterator<Item = usize> + Clone {
    (0..32).filter(move |lane| mask >> lane & 1 != 0)
}

/// The manual's own lines: the source lane and the predicate.
fn source(mode: &str, lane: usize, b: u32, c: u32) -> (usize, bool) {
    let (bval, cval, segmask) = (b as i32 & 0x1f, c as i32 & 0x1f, c as i32 >> 8 & 0x1f);
    let lane = lane as i32;
    let (most, least) = ((lane & segmask) | (cval & !segmask), lane & segmask);
    let (j, p) = match mode {
        "up" => (lane - bval, lane - bval >= most),
        "down" => (lane + bval, lane + bval <= most),
        "bfly" => (lane ^ bval, (lane ^ bval) <= most),
        _ => (least | (bval & !segmask), (least | (bval & !segmask)) <= most),
    };
    (if p { j as usize } else { lane as usize }, p)
}

#[test]
fn shuffles_in_every_mode() {
    let words = inputs(1, 1);
    for mode in ["up", "down", "bfly", "idx"] {
        for segment in [0u32, 0x10, 0x18, 0x1c, 0x1e, 0x1f] {
            // Clamps as the language gives them, and some that cut a segment.
            for clamp in [0, 0x1f, 5, 11] {
                let c = segment << 8 | clamp;
                for b in [0, 1, 2, 3, 7, 8, 15, 16, 31, 33] {
                    let body = format!("shfl.sync.{mode}.b32 %r40|%p1, %r0, {b}, {c}, -1;\nselp.u32 %r41, 1, 0, %p1;");
                    check(u32::MAX, &body, &words, 2, |lane| {
                        let (from, p) = source(mode, lane, b, c);
                        vec![words[from][0], u64::from(p)]
                    });
                }
            }
        }
    }
}

#[test]
fn shuffles_by_registers_and_among_some_lanes() {
    // Every lane has a source of its own within the group.
    let mut words = inputs(2, 2);
    for mask in MASKS {
        let all: Vec<usize> = members(mask).collect();
        for (lane, words) in words.iter_mut().enumerate() {
            words[1] = all[(lane * 7 + 3) % all.len()] as u64;
        }
        check(mask, "shfl.sync.idx.b32 %r40, %r0, %r1, 31, %r93;", &words, 1, |lane| {
            vec![words[words[lane][1] as usize][0]]
        });
    }
    // Even lanes shuffle among themselves by even distances, in segments of eight.
    for (mode, c, b) in [("up", 0x1800, 2), ("down", 0x181f, 4), ("bfly", 0x181f, 6)] {
        let body = format!("shfl.sync.{mode}.b32 %r40, %r0, {b}, {c}, %r93;");
        check(MASKS[1], &body, &words, 1, |lane| vec![words[source(mode, lane, b, c).0][0]]);
    }
}

#[test]
fn votes_among_all_and_some() {
    for (name, threshold) in [("none", 0u64), ("half", 0x8000_0000), ("all", 0x1_0000_0000)] {
        let words = inputs(3, 1);
        let holds = |lane: usize| words[lane][0] < threshold;
        let limit = match name {
            "none" => "setp.ne.u32 %p1, %r0, %r0;",
            "all" => "setp.eq.u32 %p1, %r0, %r0;",
            _ => "setp.lt.u32 %p1, %r0, 0x80000000;",
        };
        for mask in MASKS {
            let (all, any) = (members(mask).all(holds), members(mask).any(holds));
            for (mode, result) in [("all", all), ("any", any), ("uni", all || !any)] {
                let body = format!("{limit}\nvote.sync.{mode}.pred %p2, %p1, %r93;\nselp.u32 %r40, 1, 0, %p2;");
                check(mask, &body, &words, 1, |_| vec![u64::from(result)]);
            }
            let none_hold = !any;
            let body = format!("{limit}\nvote.sync.all.pred %p2, !%p1, %r93;\nselp.u32 %r40, 1, 0, %p2;");
            check(mask, &body, &words, 1, |_| vec![u64::from(none_hold)]);
            let ballot = members(mask).filter(|lane| holds(*lane)).fold(0u64, |m, lane| m | 1 << lane);
            check(mask, &format!("{limit}\nvote.sync.ballot.b32 %r40, %p1, %r93;"), &words, 1, |_| vec![ballot]);
            check(mask, &format!("{limit}\nvote.sync.ballot.b32 %r40, !%p1, %r93;"), &words, 1, |_| {
                vec![u64::from(mask) & !ballot]
            });
        }
    }
}

#[test]
fn matches_of_both_widths() {
    let words = inputs(4, 1);
    for mask in MASKS {
        for keep in [0u64, 1, 3] {
            let key = |lane: usize| words[lane][0] & keep;
            let same = |lane: usize| {
                members(mask).filter(|other| key(*other) == key(lane)).fold(0u64, |m, other| m | 1 << other)
            };
            let narrow = format!("and.b32 %r1, %r0, {keep};\n");
            let wide = format!("{narrow}cvt.u64.u32 %rd1, %r1;\nshl.b64 %rd1, %rd1, 40;\n");
            for (ty, register, start) in [("b32", "%r1", &narrow), ("b64", "%rd1", &wide)] {
                check(mask, &format!("{start}match.any.sync.{ty} %r40, {register}, %r93;"), &words, 1, |lane| {
                    vec![same(lane)]
                });
                let all = members(mask).all(|lane| same(lane) == u64::from(mask));
                let expected = if all { u64::from(mask) } else { 0 };
                let body = format!("{start}match.all.sync.{ty} %r40|%p1, {register}, %r93;\nselp.u32 %r41, 1, 0, %p1;");
                check(mask, &body, &words, 2, |_| vec![expected, u64::from(all)]);
            }
        }
    }
}

#[test]
fn reductions_of_every_operation() {
    let words = inputs(5, 1);
    type Operation = (&'static str, fn(u32, u32) -> u32);
    let operations: [Operation; 9] = [
        ("add.u32", u32::wrapping_add),
        ("add.s32", u32::wrapping_add),
        ("min.u32", u32::min),
        ("max.u32", u32::max),
        ("min.s32", |a, b| (a as i32).min(b as i32) as u32),
        ("max.s32", |a, b| (a as i32).max(b as i32) as u32),
        ("and.b32", |a, b| a & b),
        ("or.b32", |a, b| a | b),
        ("xor.b32", |a, b| a ^ b),
    ];
    for mask in MASKS {
        for (op, f) in operations {
            let total = members(mask).map(|lane| words[lane][0] as u32).reduce(f).unwrap();
            check(mask, &format!("redux.sync.{op} %r40, %r0, %r93;"), &words, 1, |_| vec![u64::from(total)]);
        }
    }
}

#[test]
fn leaders_and_active_lanes() {
    let words = inputs(6, 1);
    for mask in MASKS {
        let leader = mask.trailing_zeros();
        let body =
            "elect.sync %r40|%p1, %r93;\nselp.u32 %r41, 1, 0, %p1;\nelect.sync _|%p2, %r93;\nselp.u32 %r42, 1, 0, %p2;";
        check(mask, body, &words, 3, |lane| {
            let first = u64::from(lane == leader as usize);
            vec![u64::from(leader), first, first]
        });
        check(mask, "activemask.b32 %r40;", &words, 1, |_| vec![u64::from(mask)]);
    }
    check(
        u32::MAX,
        "mov.u32 %r40, %lanemask_lt;\nmov.u32 %r41, %lanemask_ge;\nmov.u32 %r42, %lanemask_eq;\nmov.u32 %r43, %lanemask_le;\nmov.u32 %r44, %lanemask_gt;\nmov.u32 %r45, %laneid;",
        &words,
        6,
        |lane| {
            let bit = 1u64 << lane;
            vec![bit - 1, !(bit - 1) & 0xffff_ffff, bit, bit * 2 - 1, !(bit * 2 - 1) & 0xffff_ffff, lane as u64]
        },
    );
}

#[test]
fn warp_barriers_order_what_lanes_write() {
    // Odd and even lanes come by two ways; each then reads what its neighbour wrote.
    let words = inputs(7, 1);
    let body = "mov.u32 %r80, tile;\nshl.b32 %r81, %r99, 2;\nadd.u32 %r82, %r80, %r81;\nand.b32 %r83, %r99, 1;\nsetp.eq.u32 %p1, %r83, 0;\n@%p1 bra $EVEN;\n\
        st.shared.u32 [%r82], %r0;\nbar.warp.sync -1;\nbra $BOTH;\n$EVEN:\nnot.b32 %r84, %r0;\nst.shared.u32 [%r82], %r84;\nbar.warp.sync 0xffffffff;\n$BOTH:\n\
        xor.b32 %r85, %r81, 4;\nadd.u32 %r86, %r80, %r85;\nld.shared.u32 %r40, [%r86];";
    check(u32::MAX, body, &words, 1, |lane| {
        let other = lane ^ 1;
        vec![if other % 2 == 0 { !words[other][0] & 0xffff_ffff } else { words[other][0] }]
    });
}

#[test]
fn special_registers_of_a_warp() {
    let words = inputs(8, 1);
    let body = "mov.u32 %r40, %ntid.x;\nmov.u32 %r41, %nctaid.y;\nmov.u32 %r42, %ctaid.z;\nmov.u32 %r43, %warpid;\nmov.u32 %r44, %nwarpid;\nmov.u32 %r45, %total_smem_size;\nmov.u32 %r46, %dynamic_smem_size;\n\
        mov.u32 %r47, %clusterid.x;\nmov.u32 %r48, %cluster_nctarank;\nmov.u32 %r49, %cluster_ctarank;\nmov.pred %p1, %is_explicit_cluster;\nselp.u32 %r50, 1, 0, %p1;\nmov.u32 %r51, %aggr_smem_size;\nmov.u32 %r52, %envreg3;\nmov.u32 %r53, %pm2;\n\
        mov.u64 %rd1, %current_graph_exec;\ncvt.u32.u64 %r54, %rd1;\nmov.u32 %r55, WARP_SZ;\nmov.u32 %r56, %nclusterid.z;\nmov.u32 %r57, %cluster_nctaid.y;\nmov.u32 %r58, %cluster_ctaid.x;";
    check(u32::MAX, body, &words, 19, |_| vec![32, 1, 0, 0, 1, 4096, 0, 0, 1, 0, 0, 4096, 0, 0, 0, 32, 1, 1, 0]);
    // Numbers that only have bounds: within the machine, and time that does not run back.
    let body = "mov.u32 %r1, %smid;\nmov.u32 %r2, %nsmid;\nsetp.lt.u32 %p1, %r1, %r2;\nselp.u32 %r40, 1, 0, %p1;\nmov.u64 %rd1, %clock64;\nmov.u64 %rd2, %clock64;\nsetp.le.u64 %p2, %rd1, %rd2;\nselp.u32 %r41, 1, 0, %p2;\n\
        mov.u64 %rd3, %globaltimer;\nmov.u32 %r3, %globaltimer_lo;\nmov.u32 %r4, %globaltimer_hi;\nmov.b64 %rd4, {%r3, %r4};\nsetp.le.u64 %p3, %rd3, %rd4;\nselp.u32 %r42, 1, 0, %p3;\nmov.u32 %r5, %clock;\nmov.u32 %r6, %clock_hi;\nmov.u64 %rd5, %gridid;\nsetp.ge.u64 %p4, %rd5, 0;\nselp.u32 %r43, 1, 0, %p4;";
    check(u32::MAX, body, &words, 4, |_| vec![1; 4]);
    // Vectors of them.
    let body = ".reg .v4 .u32 %v;\nmov.v4.u32 %v, %tid;\nmov.u32 %r40, %v.x;\nmov.u32 %r41, %v.y;\nmov.v4.u32 %v, %ntid;\nmov.u32 %r42, %v.r;\nmov.u32 %r43, %v.w;";
    check(u32::MAX, body, &words, 4, |lane| vec![lane as u64, 0, 32, 0]);
}

#[test]
fn before_volta_the_lanes_at_hand_were_meant() {
    let body = "setp.lt.u32 %p1, %r1, 20;\nmov.u32 %r3, 99;\nmov.u32 %r4, 99;\nmov.u32 %r5, 99;\n@!%p1 bra OUT;\n\
        shfl.bfly.b32 %r3, %r1, 1, 31;\nsetp.eq.u32 %p2, %r1, 7;\nvote.ballot.b32 %r4, %p2;\nvote.any.pred %p3, %p2;\nselp.u32 %r5, 1, 0, %p3;\n\
        OUT:\nst.global.u32 [%rd1], %r3;\nst.global.u32 [%rd1+4], %r4;\nst.global.u32 [%rd1+8], %r5;";
    let old = lanes::module::text("", body, 3).replace("sm_80", "sm_60");
    assert!(old.contains("sm_60"));
    lanes::module::good(&old, 32, 3, |t| if t < 20 { vec![t ^ 1, 128, 1] } else { vec![99; 3] });
    let new = software_gpu::Module::parse(&lanes::module::text("", body, 3));
    assert!(new.err().unwrap().to_string().contains("shfl.bfly.b32"));
}
