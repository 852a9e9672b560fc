use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How many files this process may have open, and those that it starts after this: as many as the hard limit allows.
pub(crate) fn open_files_max() -> usize {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised).expect("a process may raise its soft limit to the hard one");
    maximum.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX))
}
