//! Numbers that lie on the host, on a device, or on both.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::OnceLock;

use super::cuda::{Cuda, Memory, Span};
use super::dtype::Dtype;
use super::pages;
use crate::error::{Error, Result};

/// Numbers on a device in each form in which they are up to date there.
type Copies = [OnceLock<Memory>; Dtype::ALL.len()];

/// `len` numbers, f32 on the host; on a device also in 16 bits. They are copied to where and converted to what they are asked
/// for, once; whoever writes them in one place makes the copies in all others void. Where they are nowhere they are zeros.
#[derive(Debug, Default)]
pub struct Buffer {
    len: usize,
    /// At least `len` floats, if they are up to date here.
    host: OnceLock<Vec<f32>>,
    /// The same on a device. In a box: buffers of a CPU have none, and are many.
    device: OnceLock<Box<Copies>>,
    /// The form in which they were written there.
    dtype: Dtype,
    /// NaN in their place, for who cannot fail.
    lost: OnceLock<Box<[f32]>>,
}

impl Clone for Buffer {
    fn clone(&self) -> Buffer {
        Buffer::from_vec(self.host_or_nan().to_vec())
    }
}

impl Buffer {
    /// `len` zeros, which take memory where they are first asked for.
    pub fn zeros(len: usize) -> Buffer {
        Buffer { len, ..Buffer::default() }
    }

    /// A buffer on the host that owns `data`.
    pub fn from_vec(data: Vec<f32>) -> Buffer {
        Buffer::with_len(data.len(), data)
    }

    /// `len` floats in `data`, which has at least as many.
    pub(super) fn with_len(len: usize, data: Vec<f32>) -> Buffer {
        Buffer { len: len.min(data.len()), host: OnceLock::from(data), ..Buffer::default() }
    }

    /// `len` numbers of unspecified content on a device.
    pub(super) fn on_device(len: usize, memory: Memory, dtype: Dtype) -> Buffer {
        let buffer = Buffer { len, dtype, ..Buffer::default() };
        let _ = buffer.copies()[dtype as usize].set(memory);
        buffer
    }

    /// How many floats.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How they were written on a device; f32 if they were not.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The numbers in some form on whatever device they are; None if they are on none.
    fn memory(&self, dtype: Dtype) -> Result<Option<&Memory>> {
        let Some(copies) = self.device.get() else { return Ok(None) };
        let place = &copies[dtype as usize];
        if let (None, Some(written)) = (place.get(), copies[self.dtype as usize].get()) {
            let _ = place.set(written.converted(self.len, self.dtype, dtype)?);
        }
        Ok(place.get())
    }

    fn copies(&self) -> &Copies {
        self.device.get_or_init(Box::default)
    }

    /// What of the copies is there in one form, taken out.
    fn take_copy(&mut self, dtype: Dtype) -> Option<Memory> {
        self.device.get_mut().and_then(|copies| copies[dtype as usize].take())
    }

    /// Forgets what is on devices.
    fn leave_devices(&mut self) {
        self.device.take();
        self.dtype = Dtype::F32;
    }

    /// The numbers on the host.
    ///
    /// # Errors
    /// They are on a device that does not give them.
    pub fn host(&self) -> Result<&[f32]> {
        if let Some(data) = self.host.get() {
            return Ok(&data[..self.len]);
        }
        let mut data = pages::zeros(self.len);
        if let Some(memory) = self.memory(Dtype::F32)? {
            memory.download(&mut data)?;
        }
        Ok(&self.host.get_or_init(|| data)[..self.len])
    }

    /// The same for who cannot fail: NaN if the device does not give them. The next call to the device says why.
    pub fn host_or_nan(&self) -> &[f32] {
        match self.host() {
            Ok(data) => data,
            Err(_) => self.lost.get_or_init(|| vec![f32::NAN; self.len].into()),
        }
    }

    /// The numbers on the host, to be written; out of date on a device from here on. NaN as in [`Buffer::host_or_nan`].
    pub fn host_mut(&mut self) -> &mut [f32] {
        if self.host().is_err() {
            self.host = OnceLock::from(vec![f32::NAN; self.len]);
        }
        self.leave_devices();
        self.host.get_mut().map_or(&mut [], |data| &mut data[..self.len])
    }

    /// The vector behind it, to grow; out of date on a device from here on.
    pub(crate) fn grow(&mut self, work: impl FnOnce(&mut Vec<f32>) -> Result<()>) -> Result<()> {
        self.host()?;
        self.leave_devices();
        let mut data = self.host.take().unwrap_or_default();
        data.truncate(self.len);
        let done = work(&mut data);
        self.len = data.len();
        self.host = OnceLock::from(data);
        done
    }

    /// The numbers on a device, as f32.
    ///
    /// # Errors
    /// No memory for them there, a failure of the driver; they are on another device.
    pub fn on(&self, cuda: &Cuda) -> Result<Span<'_>> {
        self.on_as(cuda, Dtype::F32)
    }

    /// The numbers on a device, in some form.
    ///
    /// # Errors
    /// As [`Buffer::on`]; they are in another form of 16 bits.
    pub fn on_as(&self, cuda: &Cuda, dtype: Dtype) -> Result<Span<'_>> {
        if self.len == 0 {
            return Ok(Span::NONE);
        }
        let written = &self.copies()[self.dtype as usize];
        if written.get().is_none() {
            let memory = match self.host.get() {
                Some(data) => cuda.upload(&data[..self.len])?,
                None => {
                    let memory = cuda.room::<f32>(self.len)?;
                    cuda.fill(memory.floats(self.len), 0.0)?;
                    memory
                }
            };
            let _ = written.set(memory);
        }
        let memory = self.memory(dtype)?.filter(|memory| cuda.has(memory));
        let memory = memory.ok_or_else(|| {
            Error::device(format!("{cuda:?}"), "the numbers lie on another device; load the model on this one")
        })?;
        Ok(memory.numbers(self.len, dtype))
    }

    /// The numbers on a device, as f32, to be changed there; out of date everywhere else from here on.
    ///
    /// # Errors
    /// No memory for them there, a failure of a driver.
    pub fn on_mut(&mut self, cuda: &Cuda) -> Result<Span<'_>> {
        self.on_mut_as(cuda, Dtype::F32)
    }

    /// [`Buffer::on_mut`], with the copy in 16 bits that is there, for who writes both.
    ///
    /// # Errors
    /// As [`Buffer::on_mut`].
    pub fn on_mut_with_copy(&mut self, cuda: &Cuda) -> Result<(Span<'_>, Option<Span<'_>>)> {
        if self.dtype != Dtype::F32 {
            self.leave_narrow()?;
        }
        let copies = [Dtype::Bf16, Dtype::F16].map(|narrow| self.take_copy(narrow));
        self.on_mut(cuda)?;
        let mut copy = None;
        for (memory, narrow) in copies.into_iter().zip([Dtype::Bf16, Dtype::F16]) {
            if let Some(memory) = memory.filter(|memory| copy.is_none() && cuda.has(memory)) {
                let _ = self.copies()[narrow as usize].set(memory);
                copy = Some(narrow);
            }
        }
        let copy = copy.map(|narrow| self.on_as(cuda, narrow)).transpose()?;
        Ok((self.on(cuda)?, copy))
    }

    /// The same in some form, which is that in which they are written from here on.
    ///
    /// # Errors
    /// As [`Buffer::on_mut`]; they are in another form of 16 bits.
    pub fn on_mut_as(&mut self, cuda: &Cuda, dtype: Dtype) -> Result<Span<'_>> {
        if self.device.get().is_some_and(|copies| copies.iter().filter_map(OnceLock::get).any(|one| !cuda.has(one))) {
            self.host()?;
            self.leave_devices();
        }
        self.on_as(cuda, dtype)?;
        if self.len > 0 {
            self.host.take();
            self.dtype = dtype;
            for other in Dtype::ALL.into_iter().filter(|other| *other != dtype) {
                self.take_copy(other);
            }
        }
        self.on_as(cuda, dtype)
    }

    /// A part of the numbers on the host; of those on a device only that part is copied. The part must be one.
    ///
    /// # Errors
    /// As [`Buffer::host`].
    pub fn part(&self, part: Range<usize>) -> Result<Cow<'_, [f32]>> {
        match (self.host.get(), self.memory(Dtype::F32)?) {
            (None, Some(memory)) => {
                let mut data = vec![0.0; part.len()];
                memory.download_part(part, &mut data)?;
                Ok(Cow::Owned(data))
            }
            _ => Ok(Cow::Borrowed(self.host()?.get(part).unwrap_or_default())),
        }
    }

    /// Overwrites it, where it is.
    ///
    /// # Errors
    /// Another number of values; those of the device.
    pub fn copy_from(&mut self, values: &[f32]) -> Result<()> {
        if values.len() != self.len {
            return Err(Error::shape("buffer", format!("{} numbers for a buffer of {}", values.len(), self.len)));
        }
        if self.dtype != Dtype::F32 {
            self.leave_narrow()?;
        }
        match self.device.get().and_then(|copies| copies[Dtype::F32 as usize].get()) {
            Some(memory) => {
                memory.upload(values)?;
                self.host.take();
                self.forget_narrow();
            }
            None => self.host_mut().copy_from_slice(values),
        }
        Ok(())
    }

    /// Fills a part of it with one value, where it is. The part must be one.
    ///
    /// # Errors
    /// Those of the device.
    pub fn fill(&mut self, part: Range<usize>, value: f32) -> Result<()> {
        if self.dtype != Dtype::F32 {
            self.leave_narrow()?;
        }
        match self.device.get().and_then(|copies| copies[Dtype::F32 as usize].get()) {
            Some(memory) => {
                memory.fill(part, value)?;
                self.host.take();
                self.forget_narrow();
            }
            None => self.host_mut().get_mut(part).into_iter().for_each(|part| part.fill(value)),
        }
        Ok(())
    }

    /// From here on f32 is the form in which they are written, where they are.
    fn leave_narrow(&mut self) -> Result<()> {
        self.memory(Dtype::F32)?;
        self.dtype = Dtype::F32;
        Ok(())
    }

    fn forget_narrow(&mut self) {
        self.take_copy(Dtype::Bf16);
        self.take_copy(Dtype::F16);
    }

    /// What is in it, to be used again: memory of the host.
    pub(super) fn into_vec(self) -> Vec<f32> {
        self.host.into_inner().unwrap_or_default()
    }
}
