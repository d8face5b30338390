//! Files as a user meets them: full disks, damaged safetensors, every dtype.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use manyhead::Error;
use manyhead::interop::atomic;
use manyhead::interop::safetensors::{self, Dtype, TensorData, TensorFile};
use proptest::prelude::*;

const LARGE: [usize; 2] = [3, 5];

/// A file with a tensor of each kind.
fn write_sample(path: &Path) {
    let f32s: Vec<f32> = (0..15).map(|i| i as f32 * 0.37 - 2.0).collect();
    let f64s = [1.5f64, -2.25, 1e-3];
    let metadata = BTreeMap::from([("made \"by\"".to_string(), "a test\n".to_string())]);
    let tensors: [(&str, &[usize], TensorData); 8] = [
        ("u8", &[3], TensorData::U8(&[1, 2, 255])),
        ("layer.0.weight", &LARGE, TensorData::F32(&f32s)),
        ("half", &[2, 1], TensorData::F16(&[0x3c00, 0xc000])),
        ("scalar", &[], TensorData::F64(&f64s[..1])),
        ("bf16", &[1, 2], TensorData::BF16(&[0x3f80, 0xc000])),
        ("f64", &[3], TensorData::F64(&f64s)),
        ("ids", &[2], TensorData::I64(&[i64::MIN, 7])),
        ("empty", &[0, 4], TensorData::F32(&[])),
    ];
    safetensors::write(path, &tensors, Some(&metadata)).unwrap();
}

/// Reads everything there is in every way: nothing may panic.
fn read_all(file: &TensorFile) {
    for info in file.tensors() {
        let elements: usize = info.shape.iter().product();
        for values in
            [file.read_f32(&info.name).map(|(_, values)| values.len()), file.read_f64(&info.name).map(|(_, v)| v.len())]
        {
            assert!(values.is_err() || values.is_ok_and(|len| len == elements));
        }
        assert!(
            file.read_i64(&info.name).is_err() || file.read_i64(&info.name).is_ok_and(|(_, v)| v.len() == elements)
        );
        let mut out = vec![0.0; elements];
        if file.read_f32_into(&info.name, &info.shape, &mut out).is_ok() {
            assert!(out.iter().all(|value| value.is_finite()));
        }
    }
}

#[test]
fn what_is_written_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    write_sample(&path);
    let file = TensorFile::open(&path).unwrap();
    assert_eq!(file.tensors().len(), 8);
    assert_eq!(file.metadata()["format"], "pt");
    assert_eq!(file.metadata()["made \"by\""], "a test\n");
    let (shape, values) = file.read_f32("layer.0.weight").unwrap();
    assert_eq!((shape.as_slice(), values[14]), (LARGE.as_slice(), 14.0f32 * 0.37 - 2.0));
    assert_eq!(file.read_f32("half").unwrap(), (vec![2, 1], vec![1.0, -2.0]));
    assert_eq!(file.read_f32("bf16").unwrap(), (vec![1, 2], vec![1.0, -2.0]));
    assert_eq!(file.read_f32("f64").unwrap().1, [1.5, -2.25, 1e-3f64 as f32]);
    assert_eq!(file.read_f64("f64").unwrap().1, [1.5, -2.25, 1e-3]);
    assert_eq!(file.read_f64("scalar").unwrap(), (vec![], vec![1.5]));
    assert_eq!(file.read_i64("ids").unwrap().1, [i64::MIN, 7]);
    assert_eq!(file.read_i64("u8").unwrap().1, [1, 2, 255]);
    assert_eq!(file.read_f32("empty").unwrap(), (vec![0, 4], vec![]));
    assert_eq!(file.info("bf16").unwrap().dtype, Dtype::BF16);
    read_all(&file);
}

#[test]
fn the_wrong_name_shape_and_dtype_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    write_sample(&path);
    let file = TensorFile::open(&path).unwrap();
    let text = file.read_f32("nowhere").unwrap_err().to_string();
    assert!(text.contains("a.safetensors") && text.contains("nowhere") && text.contains("missing"), "{text}");
    let text = file.read_f32_into("layer.0.weight", &[5, 3], &mut [0.0; 15]).unwrap_err().to_string();
    assert!(text.contains("[3, 5]") && text.contains("[5, 3]"), "{text}");
    assert!(file.read_f32_into("layer.0.weight", &LARGE, &mut [0.0; 14]).is_err());
    let text = file.read_f32("ids").unwrap_err().to_string();
    assert!(text.contains("I64"), "{text}");
    assert!(file.read_i64("f64").is_err());
}

#[test]
fn weights_that_are_not_finite_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    let tensors: [(&str, &[usize], TensorData); 4] = [
        ("nan", &[2], TensorData::F32(&[0.0, f32::NAN])),
        ("inf", &[1], TensorData::F16(&[0x7c00])),
        ("large", &[1], TensorData::F64(&[1e300])),
        ("bf16", &[1], TensorData::BF16(&[0xff80])),
    ];
    safetensors::write(&path, &tensors, None).unwrap();
    let file = TensorFile::open(&path).unwrap();
    for (name, shape, _) in tensors {
        let mut out = vec![0.0; shape[0]];
        let error = file.read_f32_into(name, shape, &mut out).unwrap_err();
        assert!(matches!(&error, Error::Tensor { tensor, .. } if tensor == name), "{error}");
    }
    assert!(file.read_f32("nan").unwrap().1[1].is_nan(), "read_f32 gives what is there");
}

#[test]
fn every_half_precision_number_is_converted_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("halves.safetensors");
    let all: Vec<u16> = (0..=u16::MAX).collect();
    let some = [0x3f80u16, 0xbfc0, 0x0000, 0x4049];
    let tensors: [(&str, &[usize], TensorData<'_>); 2] =
        [("f16", &[1 << 16], TensorData::F16(&all)), ("bf16", &[4], TensorData::BF16(&some))];
    safetensors::write(&path, &tensors, None).unwrap();
    let file = TensorFile::open(&path).unwrap();
    let halves = file.read_f32("f16").unwrap().1;
    for (bits, found) in all.iter().zip(halves) {
        let (sign, exponent, mantissa) = (bits >> 15, i32::from(bits >> 10 & 31), f64::from(bits & 1023) / 1024.0);
        let magnitude = match exponent {
            0 => mantissa * 2f64.powi(-14),
            31 if mantissa == 0.0 => f64::INFINITY,
            31 => f64::NAN,
            _ => (1.0 + mantissa) * 2f64.powi(exponent - 15),
        };
        let expected = if sign == 1 { -magnitude } else { magnitude };
        assert!(f64::from(found) == expected || found.is_nan() && expected.is_nan(), "{bits:#06x}: {found}");
        assert!(expected.is_nan() || found.is_sign_negative() == (sign == 1), "{bits:#06x}");
    }
    assert_eq!(file.read_f32("bf16").unwrap().1, [1.0, -1.5, 0.0, 3.140625]);
}

#[test]
fn unaligned_tensors_are_read() {
    // Written by hand: a header of odd length, one byte of U8 first, then F32 at an odd address.
    let header = br#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header);
    bytes.push(9);
    bytes.extend_from_slice(&1.25f32.to_le_bytes());
    bytes.extend_from_slice(&(-8.0f32).to_le_bytes());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    fs::write(&path, bytes).unwrap();
    assert_eq!(TensorFile::open(&path).unwrap().read_f32("b").unwrap().1, [1.25, -8.0]);
}

#[test]
fn truncated_files_are_errors_that_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    write_sample(&path);
    let whole = fs::read(&path).unwrap();
    for tenth in 0..10 {
        let cut = dir.path().join("cut.safetensors");
        fs::write(&cut, &whole[..whole.len() * tenth / 10]).unwrap();
        let text = TensorFile::open(&cut).unwrap_err().to_string();
        assert!(text.contains("cut.safetensors") && text.contains("truncated or damaged"), "{text}");
    }
    assert!(TensorFile::open(dir.path()).is_err(), "a folder");
    assert!(TensorFile::open(dir.path().join("absent")).is_err());
}

#[test]
fn flipped_bits_and_lying_headers_never_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    write_sample(&path);
    let whole = fs::read(&path).unwrap();
    let damaged = dir.path().join("damaged.safetensors");
    for index in 0..200 {
        let position = index * whole.len() / 200;
        for bit in [0, 3, 7] {
            let mut bytes = whole.clone();
            bytes[position] ^= 1 << bit;
            fs::write(&damaged, bytes).unwrap();
            if let Ok(file) = TensorFile::open(&damaged) {
                read_all(&file);
            }
        }
    }
    let headers = [
        // Sizes that overflow, or whose sum wraps around to the length of the file.
        r#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}"#.to_string(),
        r#"{"a":{"dtype":"U8","shape":[18446744073709551608],"data_offsets":[0,18446744073709551608]}}"#.to_string(),
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#.to_string(),
        r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#.to_string(),
        r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}"#
            .to_string(),
        r#"{"a":{"dtype":"F4","shape":[1],"data_offsets":[0,1]}}"#.to_string(),
        "[".repeat(100_000),
        "null".to_string(),
    ];
    for header in headers {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(&[0; 4]);
        fs::write(&damaged, bytes).unwrap();
        assert!(TensorFile::open(&damaged).is_err(), "{header:.80}");
    }
    fs::write(&damaged, u64::MAX.to_le_bytes()).unwrap();
    assert!(TensorFile::open(&damaged).is_err());
}

#[test]
fn what_cannot_be_written_is_refused_before_anything_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    let one = TensorData::F32(&[1.0]);
    let twice: [(&str, &[usize], TensorData); 2] = [("a", &[1], one), ("a", &[1], one)];
    let misshapen: [(&str, &[usize], TensorData); 1] = [("a", &[usize::MAX, 2], one)];
    let reserved: [(&str, &[usize], TensorData); 1] = [("__metadata__", &[1], one)];
    for tensors in [&twice[..], &misshapen, &reserved] {
        assert!(safetensors::write(&path, tensors, None).is_err());
    }
    assert!(!path.exists());
    safetensors::write(&path, &[], None).unwrap();
    assert!(TensorFile::open(&path).unwrap().tensors().is_empty());
}

/// Runs this test again in a process whose files may not exceed a few kilobytes: writes then fail as on a full disk.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_the_old_file_and_no_temporary() {
    const VARIABLE: &str = "MANYHEAD_TEST_FULL_DISK";
    if let Some(dir) = std::env::var_os(VARIABLE) {
        let path = Path::new(&dir).join("a.safetensors");
        let values = vec![1.0f32; 1 << 20];
        let error = safetensors::write(&path, &[("a", &[1 << 20], TensorData::F32(&values))], None).unwrap_err();
        assert!(matches!(error, Error::Io { action: "write", .. }), "{error}");
        atomic::write_bytes(Path::new(&dir).join("ran"), b"small files still fit").unwrap();
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    atomic::write_bytes(&path, b"old").unwrap();
    // An ignored SIGXFSZ is inherited, so that the write fails instead of ending the process.
    let status = std::process::Command::new("sh")
        .args([
            "-c",
            "trap '' XFSZ; ulimit -f 64; exec \"$0\" --exact a_full_disk_leaves_the_old_file_and_no_temporary",
        ])
        .arg(std::env::current_exe().unwrap())
        .env(VARIABLE, dir.path())
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no temporary file stays");
    assert!(dir.path().join("ran").exists());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_headers_never_panic(header in "[\\[\\]{}\":,a0-9A-F_]{0,60}", tail in prop::collection::vec(any::<u8>(), 0..20)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(&tail);
        fs::write(&path, bytes).unwrap();
        if let Ok(file) = TensorFile::open(&path) {
            read_all(&file);
        }
    }
}
