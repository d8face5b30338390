//! The driver of a build without the feature `cuda`: there is none, and nothing after that can be called.

use std::convert::Infallible;
use std::ffi::c_void;
use std::fmt;

use super::launch::Launch;

/// Why a call of the driver failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "the driver that is there makes them")]
pub enum Failure {
    Memory,
    Image(String),
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ABSENT)
    }
}

const ABSENT: &str = "this program was built without CUDA (the feature `cuda`)";

pub fn start() -> Result<Started, String> {
    Err(ABSENT.into())
}

pub struct Started {
    pub version: u32,
    pub devices: usize,
}

pub fn name(_: usize) -> Result<String, Failure> {
    Err(Failure::Other(ABSENT.into()))
}

pub fn version() -> i32 {
    0
}

pub struct Driver(Infallible);

pub struct Mark(Infallible);

#[derive(Clone, Debug)]
pub struct Function {
    pub max_threads: u32,
    pub max_shared: u32,
    pub parameters: Option<Vec<usize>>,
}

#[derive(Clone, Copy, Debug)]
pub struct Module;

pub struct Graph;

pub struct Executable;

macro_rules! never {
    ($($(#[$meta:meta])* $name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => { $(
        $(#[$meta])*
        pub fn $name(&self, $($argument: $type),*) -> $result {
            match self.0 {}
        }
    )* };
}

#[allow(unused_variables, reason = "nothing after `open` can be called")]
impl Driver {
    pub fn open(ordinal: usize) -> Result<Driver, Failure> {
        Err(Failure::Other(ABSENT.into()))
    }

    never! {
        arch() -> Result<u32, Failure>;
        shared_memory() -> Result<u32, Failure>;
        multiprocessors() -> Result<u32, Failure>;
        memory() -> Result<(usize, usize), Failure>;
        allocate(bytes: usize) -> Result<u64, Failure>;
        free(address: u64) -> ();
        allocate_pinned(bytes: usize) -> Result<*mut u8, Failure>;
        free_pinned(pointer: *mut u8) -> ();
        synchronize() -> Result<(), Failure>;
        mark() -> Result<Mark, Failure>;
        seconds_between(start: &Mark, end: &Mark) -> Result<f64, Failure>;
        load(image: &[u8]) -> Result<Module, Failure>;
        unload(module: Module) -> ();
        function(module: Module, name: &str, shared: u32) -> Result<Function, Failure>;
        allow_shared(function: &Function) -> Result<(), Failure>;
        has_graphs() -> bool;
        begin_capture() -> Result<(), Failure>;
        end_capture() -> Result<Graph, Failure>;
        instantiate(graph: &Graph) -> Result<Executable, Failure>;
        update(executable: &Executable, graph: &Graph) -> Result<bool, Failure>;
        destroy_graph(graph: Graph) -> ();
        destroy_executable(executable: Executable) -> ();
    }

    /// # Safety
    /// Cannot be called.
    pub unsafe fn upload(&self, address: u64, bytes: &[u8]) -> Result<(), Failure> {
        match self.0 {}
    }

    /// # Safety
    /// Cannot be called.
    pub unsafe fn download(&self, bytes: &mut [u8], address: u64) -> Result<(), Failure> {
        match self.0 {}
    }

    /// # Safety
    /// Cannot be called.
    pub unsafe fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<(), Failure> {
        match self.0 {}
    }

    /// # Safety
    /// Cannot be called.
    pub unsafe fn fill(&self, address: u64, word: u32, bytes: usize) -> Result<(), Failure> {
        match self.0 {}
    }

    /// # Safety
    /// Cannot be called.
    pub unsafe fn launch_graph(&self, executable: &Executable) -> Result<(), Failure> {
        match self.0 {}
    }

    /// # Safety
    /// Cannot be called.
    pub unsafe fn launch(
        &self,
        function: &Function,
        launch: Launch,
        pointers: &mut [*mut c_void],
    ) -> Result<(), Failure> {
        match self.0 {}
    }
}

/// The compiler, likewise.
pub mod nvrtc {
    use std::path::Path;

    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Compiled {
        pub ptx: Vec<u8>,
        pub cubin: Vec<u8>,
    }

    pub struct Nvrtc {
        pub version: (i32, i32),
    }

    pub fn open(_: u32, _: Option<&Path>) -> Result<&'static Nvrtc, String> {
        Err(super::ABSENT.into())
    }

    impl Nvrtc {
        pub fn architecture(&self, _: u32) -> Option<u32> {
            None
        }

        pub fn compile(&self, _: &str, _: &str, _: &[String]) -> Result<Compiled, String> {
            Err(super::ABSENT.into())
        }
    }
}
