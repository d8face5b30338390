//! Device and host memory: sizes, ranges, copies, fills, and what is told of a pointer.

#[macro_use]
mod support;

use std::ffi::c_void;
use std::ptr::null_mut;
use support::*;

#[test]
fn allocations_are_counted_and_bounded() {
    let _own = Own::new();
    let (mut free, mut total, mut pointer) = (0, 0, 0);
    ok!(cuMemGetInfo_v2(&mut free, &mut total));
    assert_eq!(total, 4 << 30);
    assert!(free <= total);
    assert_eq!(cu!(cuMemAlloc_v2(&mut pointer, 0)), CUDA_ERROR_INVALID_VALUE);
    assert_eq!(cu!(cuMemAlloc_v2(null_mut(), 4)), CUDA_ERROR_INVALID_VALUE);
    assert_eq!(cu!(cuMemAlloc_v2(&mut pointer, 5 << 30)), CUDA_ERROR_OUT_OF_MEMORY);
    assert_eq!(cu!(cuMemAlloc_v2(&mut pointer, usize::MAX)), CUDA_ERROR_OUT_OF_MEMORY);
    let pointer = alloc(1000);
    assert_eq!(pointer % 256, 0);
    ok!(cuMemFree_v2(pointer));
}

#[test]
fn freeing_what_is_not_an_allocation_is_refused() {
    let _own = Own::new();
    let pointer = alloc(64);
    assert_eq!(cu!(cuMemFree_v2(pointer + 16)), CUDA_ERROR_INVALID_VALUE);
    ok!(cuMemFree_v2(pointer));
    assert_eq!(cu!(cuMemFree_v2(pointer)), CUDA_ERROR_INVALID_VALUE, "freed twice");
    assert_eq!(cu!(cuMemFree_v2(pointer + 16)), CUDA_ERROR_INVALID_VALUE);
    assert_eq!(cu!(cuMemFree_v2(0x1234)), CUDA_ERROR_INVALID_VALUE);
    // None of it sticks.
    ok!(cuCtxSynchronize());
}

#[test]
fn copies_go_where_they_should_and_nowhere_else() {
    let _own = Own::new();
    let values: Vec<u32> = (0..100).collect();
    let first = upload(&values);
    let second = alloc(400);
    ok!(cuMemcpyDtoD_v2(second, first, 400));
    ok!(cuMemcpyDtoDAsync_v2(second + 4, first, 8, null_mut()));
    assert_eq!(download::<u32>(second, 4), [0, 0, 1, 3]);
    // Overlapping, and by addresses alone.
    ok!(cuMemcpyDtoD_v2(first + 4, first, 396));
    assert_eq!(download::<u32>(first, 100)[98..], [97, 98]);
    let mut back = [0u32; 2];
    ok!(cuMemcpy(parameter(&mut back) as u64, second, 8));
    assert_eq!(back, [0, 0]);
    ok!(cuMemcpyAsync(second, values[5..].as_ptr() as u64, 8, null_mut()));
    assert_eq!(download::<u32>(second, 2), [5, 6]);

    let mut host = [7u8; 8];
    assert_eq!(cu!(cuMemcpyDtoH_v2(parameter(&mut host), second + 396, 8)), CUDA_ERROR_INVALID_VALUE);
    assert_eq!(host, [7; 8], "nothing is copied in part");
    assert_eq!(cu!(cuMemcpyHtoD_v2(second + 396, host.as_ptr().cast(), 8)), CUDA_ERROR_INVALID_VALUE);
    assert_eq!(cu!(cuMemcpyHtoD_v2(second, std::ptr::null(), 8)), CUDA_ERROR_INVALID_VALUE);
    assert_eq!(cu!(cuMemcpyDtoH_v2(null_mut(), second, 8)), CUDA_ERROR_INVALID_VALUE);
    assert_eq!(cu!(cuMemcpyDtoD_v2(second, 0, 8)), CUDA_ERROR_INVALID_VALUE);
    assert_eq!(cu!(cuMemcpyDtoH_v2(parameter(&mut host), second, usize::MAX)), CUDA_ERROR_INVALID_VALUE);
    ok!(cuMemcpyHtoD_v2(0, std::ptr::null(), 0));
    ok!(cuMemFree_v2(second));
    assert_eq!(cu!(cuMemcpyDtoH_v2(parameter(&mut host), second, 8)), CUDA_ERROR_INVALID_VALUE, "freed");
}

#[test]
fn fills_write_their_pattern() {
    let _own = Own::new();
    let pointer = alloc(64);
    ok!(cuMemsetD8_v2(pointer, 0xab, 64));
    ok!(cuMemsetD16_v2(pointer + 2, 0x1234, 2));
    ok!(cuMemsetD32Async(pointer + 8, 0xdead_beef, 2, null_mut()));
    assert_eq!(download::<u16>(pointer, 5), [0xabab, 0x1234, 0x1234, 0xabab, 0xbeef]);
    assert_eq!(cu!(cuMemsetD32_v2(pointer + 2, 0, 1)), CUDA_ERROR_INVALID_VALUE, "misaligned");
    assert_eq!(cu!(cuMemsetD16_v2(pointer + 1, 0, 1)), CUDA_ERROR_INVALID_VALUE);
    assert_eq!(cu!(cuMemsetD8_v2(pointer, 0, 65)), CUDA_ERROR_INVALID_VALUE);
    assert_eq!(cu!(cuMemsetD32_v2(pointer, 0, usize::MAX)), CUDA_ERROR_INVALID_VALUE);
    ok!(cuMemsetD2D8_v2(pointer, 16, 1, 4, 3));
    assert_eq!(download::<u8>(pointer + 32, 6), [1, 1, 1, 1, 0xab, 0xab]);
    assert_eq!(cu!(cuMemsetD2D8_v2(pointer, 2, 1, 4, 3)), CUDA_ERROR_INVALID_VALUE, "a pitch less than a row");
}

#[test]
fn rectangles_are_copied_by_rows() {
    let _own = Own::new();
    let values: Vec<u8> = (0..64).collect();
    let device = alloc(64);
    ok!(cuMemsetD8_v2(device, 0xff, 64));
    let mut copy = CUDA_MEMCPY2D {
        srcXInBytes: 1,
        srcY: 1,
        srcMemoryType: 1,
        srcHost: values.as_ptr().cast(),
        srcDevice: 0,
        srcArray: null_mut(),
        srcPitch: 8,
        dstXInBytes: 2,
        dstY: 0,
        dstMemoryType: 2,
        dstHost: null_mut(),
        dstDevice: device,
        dstArray: null_mut(),
        dstPitch: 16,
        WidthInBytes: 3,
        Height: 2,
    };
    ok!(cuMemcpy2D_v2(&copy));
    assert_eq!(download::<u8>(device, 22)[..6], [255, 255, 9, 10, 11, 255]);
    assert_eq!(download::<u8>(device + 16, 6), [255, 255, 17, 18, 19, 255]);
    copy.dstMemoryType = 3;
    assert_eq!(cu!(cuMemcpy2D_v2(&copy)), CUDA_ERROR_NOT_SUPPORTED);
    copy.dstMemoryType = 2;
    copy.dstPitch = 4;
    assert_eq!(cu!(cuMemcpy2D_v2(&copy)), CUDA_ERROR_INVALID_VALUE);
    copy.dstPitch = usize::MAX / 2;
    assert_ne!(cu!(cuMemcpy2DAsync_v2(&copy, null_mut())), 0);
    assert_eq!(cu!(cuMemcpy2D_v2(std::ptr::null())), CUDA_ERROR_INVALID_VALUE);
}

#[test]
fn host_memory_is_known_by_its_start() {
    let _own = Own::new();
    let (mut pinned, mut device, mut flags): (*mut c_void, u64, u32) = (null_mut(), 0, 0);
    assert_eq!(cu!(cuMemHostAlloc(&mut pinned, 0, 0)), CUDA_ERROR_INVALID_VALUE);
    assert_eq!(cu!(cuMemHostAlloc(&mut pinned, 16, 8)), CUDA_ERROR_INVALID_VALUE);
    ok!(cuMemHostAlloc(&mut pinned, 16, 2));
    ok!(cuMemHostGetFlags(&mut flags, pinned));
    assert_eq!(flags, 2);
    ok!(cuMemHostGetDevicePointer_v2(&mut device, pinned, 0));
    // What the device writes there the host reads, and the other way round.
    ok!(cuMemsetD32_v2(device, 77, 4));
    // SAFETY: 16 living bytes.
    unsafe {
        assert_eq!(*pinned.cast::<u32>(), 77);
        *pinned.cast::<u32>() = 78;
    }
    assert_eq!(download::<u32>(device, 2), [78, 77]);
    assert_eq!(cu!(cuMemHostUnregister(pinned)), CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
    assert_eq!(cu!(cuMemFree_v2(device)), CUDA_ERROR_INVALID_VALUE, "the mirror is not the program's");
    ok!(cuMemFreeHost(pinned));
    assert_eq!(cu!(cuMemFreeHost(pinned)), CUDA_ERROR_INVALID_VALUE);
    let mut own = vec![0u32; 64];
    let start: *mut c_void = own.as_mut_ptr().cast();
    ok!(cuMemHostRegister_v2(start, 256, 0));
    assert_eq!(cu!(cuMemHostRegister_v2(parameter(&mut own[8]), 4, 0)), CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
    assert_eq!(cu!(cuMemFreeHost(start)), CUDA_ERROR_INVALID_VALUE);
    ok!(cuMemHostUnregister(start));
    assert_eq!(cu!(cuMemHostUnregister(start)), CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
}

#[test]
fn pools_give_memory_and_count_it() {
    let _own = Own::new();
    let (mut pool, mut pointer, mut used) = (null_mut(), 0u64, 9u64);
    ok!(cuMemAllocAsync(&mut pointer, 0, null_mut()));
    assert_eq!(pointer, 0);
    ok!(cuMemFreeAsync(0, null_mut()));
    let properties = CUmemPoolProps {
        allocType: 1,
        handleTypes: 0,
        locationType: 1,
        locationId: 0,
        win32SecurityAttributes: null_mut(),
        maxSize: 0,
        reserved: [0; 56],
    };
    ok!(cuMemPoolCreate(&mut pool, &properties));
    ok!(cuMemAllocFromPoolAsync(&mut pointer, 100, pool, null_mut()));
    ok!(cuMemPoolGetAttribute(pool, 7, parameter(&mut used)));
    assert_eq!(used, 100);
    ok!(cuMemFreeAsync(pointer, null_mut()));
    ok!(cuMemPoolGetAttribute(pool, 7, parameter(&mut used)));
    assert_eq!(used, 0);
    assert_eq!(cu!(cuMemFreeAsync(pointer, null_mut())), CUDA_ERROR_INVALID_VALUE);
    ok!(cuMemPoolDestroy(pool));
    assert_eq!(cu!(cuMemAllocFromPoolAsync(&mut pointer, 100, pool, null_mut())), CUDA_ERROR_INVALID_VALUE);
    ok!(cuDeviceGetDefaultMemPool(&mut pool, 0));
    assert_eq!(cu!(cuMemPoolDestroy(pool)), CUDA_ERROR_INVALID_VALUE);
}

#[test]
fn pointers_tell_whose_they_are() {
    let own = Own::new();
    let pointer = alloc(100);
    let (mut kind, mut start, mut size, mut context): (u32, u64, usize, Handle) = (0, 0, 0, null_mut());
    ok!(cuPointerGetAttribute(parameter(&mut kind), 2, pointer + 50));
    ok!(cuPointerGetAttribute(parameter(&mut start), 11, pointer + 50));
    ok!(cuPointerGetAttribute(parameter(&mut size), 12, pointer + 50));
    ok!(cuPointerGetAttribute(parameter(&mut context), 1, pointer));
    assert_eq!((kind, start, size, context), (2, pointer, 100, own.0));
    ok!(cuMemGetAddressRange_v2(&mut start, &mut size, pointer + 99));
    assert_eq!((start, size), (pointer, 100));
    assert_eq!(cu!(cuMemGetAddressRange_v2(&mut start, &mut size, pointer + 100)), CUDA_ERROR_NOT_FOUND);
    let local = 0u64;
    let address = &raw const local as u64;
    assert_eq!(cu!(cuPointerGetAttribute(parameter(&mut kind), 2, address)), CUDA_ERROR_INVALID_VALUE);
    assert_eq!(cu!(cuPointerGetAttribute(parameter(&mut kind), 99, pointer)), CUDA_ERROR_INVALID_VALUE);
    let mut destinations = [parameter(&mut kind)];
    ok!(cuPointerGetAttributes(1, [2].as_ptr(), destinations.as_mut_ptr(), address));
    assert_eq!(kind, 0);
}

#[test]
fn threads_work_side_by_side() {
    let threads: Vec<_> = (0..8u32)
        .map(|thread| {
            std::thread::spawn(move || {
                let _own = Own::new();
                let mut stream = null_mut();
                ok!(cuStreamCreate(&mut stream, 1));
                for round in 0..50 {
                    let values: Vec<u32> = (0..64).map(|value| value * 31 + thread * 7 + round).collect();
                    let pointer = upload(&values);
                    let copy = alloc(256);
                    ok!(cuMemcpyDtoDAsync_v2(copy, pointer, 256, stream));
                    ok!(cuStreamSynchronize(stream));
                    assert_eq!(download::<u32>(copy, 64), values);
                    ok!(cuMemFree_v2(copy));
                    ok!(cuMemFree_v2(pointer));
                }
                ok!(cuStreamDestroy_v2(stream));
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn boxes_are_copied_slice_by_slice() {
    let _own = Own::new();
    // A box of 3 x 2 x 2 bytes out of the middle of 8 x 4 x 3 on the device, to a host array of 5 x 3 x 2.
    let source: Vec<u8> = (0..96).collect();
    let device = upload(&source);
    let mut host = [0xffu8; 30];
    // SAFETY: integers and pointers, all of which may be zero.
    let mut copy: CUDA_MEMCPY3D = unsafe { std::mem::zeroed() };
    (copy.srcMemoryType, copy.srcDevice, copy.srcPitch, copy.srcHeight) = (2, device, 8, 4);
    (copy.srcXInBytes, copy.srcY, copy.srcZ) = (2, 1, 1);
    (copy.dstMemoryType, copy.dstHost, copy.dstPitch, copy.dstHeight) = (1, host.as_mut_ptr().cast(), 5, 3);
    (copy.dstXInBytes, copy.dstY, copy.dstZ) = (1, 1, 0);
    (copy.WidthInBytes, copy.Height, copy.Depth) = (3, 2, 2);
    ok!(cuMemcpy3D_v2(&copy));
    for (at, got) in host.iter().enumerate() {
        let (x, y, z) = (at % 5, at / 5 % 3, at / 15);
        let inside = (1..4).contains(&x) && y >= 1;
        let expected = if inside { ((z + 1) * 32 + (y - 1 + 1) * 8 + (x - 1 + 2)) as u8 } else { 0xff };
        assert_eq!(*got, expected, "x {x}, y {y}, z {z}");
    }
    copy.srcHeight = 2;
    assert_eq!(
        cu!(cuMemcpy3DAsync_v2(&copy, null_mut())),
        CUDA_ERROR_INVALID_VALUE,
        "a slice is higher than its source"
    );
    (copy.srcHeight, copy.Depth) = (4, 3);
    assert_eq!(cu!(cuMemcpy3D_v2(&copy)), CUDA_ERROR_INVALID_VALUE, "past the end");
    ok!(cuMemFree_v2(device));
}

#[test]
fn streams_write_values_and_find_them() {
    let _own = Own::new();
    let words = upload(&[0u32; 4]);
    let none = null_mut();
    ok!(cuStreamWriteValue32_v2(none, words + 4, 0x8000_0005, 0));
    ok!(cuStreamWriteValue64_v2(none, words + 8, 1 << 40 | 7, 1));
    assert_eq!(download::<u32>(words, 4), [0, 0x8000_0005, 7, 256]);
    // At least, in the circle of 32-bit numbers; equal; a common bit; a bit that neither has.
    for (value, flags, met) in [
        (0x8000_0004, 0, true),
        (0x8000_0006, 0, false),
        (6, 0, true),
        (5, 0, false),
        (0x8000_0005, 1, true),
        (5, 1, false),
        (4, 2, true),
        (2, 2, false),
        (0x7fff_fff8, 3, true),
        (0x7fff_fffa, 3, false),
    ] {
        let code = cu!(cuStreamWaitValue32_v2(none, words + 4, value, flags));
        assert_eq!(code == 0, met, "value {value:#x}, flags {flags}: {code}");
    }
    ok!(cuStreamWaitValue64_v2(none, words + 8, 1 << 40, 0));
    assert_ne!(cu!(cuStreamWaitValue64_v2(none, words + 8, 1 << 41, 0)), 0);
    assert_eq!(cu!(cuStreamWriteValue32_v2(none, words + 2, 1, 0)), CUDA_ERROR_INVALID_VALUE, "misaligned");
    ok!(cuMemFree_v2(words));
}
