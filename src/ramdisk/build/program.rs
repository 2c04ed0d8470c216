//! The program that is `/init`, and the shared libraries that it was linked with.

use super::FileToPack;
use crate::error::{Error, Kind, Result};
use elf::ElfBytes;
use elf::abi::{DT_NEEDED, DT_STRSZ, DT_STRTAB, EM_X86_64, PT_INTERP, PT_LOAD};
use elf::endian::LittleEndian;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Where the dynamic linkers of distributions look without a cache.
const LIBRARY_FOLDERS: [&str; 6] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
];

/// What glibc before 2.34 loads at run time to find a host by its name; part of libc since.
const NAME_SERVICES: [&str; 3] = ["libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2"];

/// Reads the program and finds what it needs to run; the first one is the program itself.
///
/// # Errors
/// `invalid` if it is no program for x86-64 Linux, `not_found` if a library is missing.
pub(super) fn with_libraries(path: &Path) -> Result<Vec<FileToPack>> {
    let bytes = read(path)?;
    let Needs {
        interpreter,
        libraries,
    } = needs_of(path, &bytes)?;
    let mut files = vec![FileToPack {
        path: "init".into(),
        bytes,
        is_program: true,
    }];
    // Linked statically, it needs nothing.
    let Some(interpreter) = interpreter else {
        return Ok(files);
    };
    let linker = read(Path::new(&interpreter))?;
    files.push(packed(&interpreter, linker));
    let mut seen = BTreeSet::from_iter(Path::new(&interpreter).file_name().map(PathBuf::from));
    let mut wanted = libraries;
    wanted.extend(NAME_SERVICES.map(str::to_owned));
    while let Some(name) = wanted.pop() {
        if !seen.insert(PathBuf::from(&name)) {
            continue;
        }
        let Some(found) = find(&name) else {
            if NAME_SERVICES.contains(&name.as_str()) {
                continue;
            }
            return Err(
                Error::new(Kind::NotFound, format!("{name} is in no library folder"))
                    .target(path.display().to_string()),
            );
        };
        let library = read(&found)?;
        wanted.extend(needs_of(&found, &library)?.libraries);
        files.push(packed(&found.display().to_string(), library));
    }
    files.sort_by(|a, b| (a.path != "init", &a.path).cmp(&(b.path != "init", &b.path)));
    Ok(files)
}

fn packed(path: &str, bytes: Vec<u8>) -> FileToPack {
    FileToPack {
        path: path.trim_start_matches('/').to_owned(),
        bytes,
        is_program: true,
    }
}

fn find(name: &str) -> Option<PathBuf> {
    let folders = LIBRARY_FOLDERS
        .iter()
        .map(|folder| Path::new(folder).join(name));
    folders.into_iter().find(|path| path.is_file())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Error::io(path, "read", &e))
}

/// What an ELF file asks for.
struct Needs {
    interpreter: Option<String>,
    libraries: Vec<String>,
}

fn needs_of(path: &Path, bytes: &[u8]) -> Result<Needs> {
    let wrong = |why: String| {
        Error::new(Kind::Invalid, format!("no program for x86-64 Linux: {why}"))
            .target(path.display().to_string())
    };
    let broken = |e: elf::ParseError| wrong(e.to_string());
    let file = ElfBytes::<LittleEndian>::minimal_parse(bytes).map_err(broken)?;
    if file.ehdr.e_machine != EM_X86_64 {
        return Err(wrong(format!("machine {}", file.ehdr.e_machine)));
    }
    let segments: Vec<_> = file.segments().into_iter().flatten().collect();
    let mut interpreter = None;
    if let Some(segment) = segments.iter().find(|s| s.p_type == PT_INTERP) {
        let name = file.segment_data(segment).map_err(broken)?;
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        interpreter = Some(String::from_utf8_lossy(name).into_owned());
    }
    let entries: Vec<_> = file
        .dynamic()
        .map_err(broken)?
        .into_iter()
        .flatten()
        .collect();
    let value = |tag: i64| {
        entries
            .iter()
            .find(|e| e.d_tag == tag)
            .map(elf::dynamic::Dyn::d_val)
    };
    let strings = value(DT_STRTAB)
        .zip(value(DT_STRSZ))
        .and_then(|(address, size)| {
            let load = segments.iter().filter(|s| s.p_type == PT_LOAD);
            let mut within =
                load.filter(|s| (s.p_vaddr..s.p_vaddr + s.p_filesz).contains(&address));
            let segment = within.next()?;
            let start = usize::try_from(address - segment.p_vaddr + segment.p_offset).ok()?;
            bytes.get(start..start.checked_add(usize::try_from(size).ok()?)?)
        });
    let name_at = |offset: u64| {
        let rest = strings?.get(usize::try_from(offset).ok()?..)?;
        let name = rest.split(|byte| *byte == 0).next()?;
        Some(String::from_utf8_lossy(name).into_owned())
    };
    let needed = entries.iter().filter(|e| e.d_tag == DT_NEEDED);
    let libraries: Option<Vec<String>> = needed.map(|e| name_at(e.d_val())).collect();
    let libraries = libraries.ok_or_else(|| wrong("names outside of its strings".into()))?;
    Ok(Needs {
        interpreter,
        libraries,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_is_packed_with_its_libraries() {
        let files = with_libraries(&std::env::current_exe().unwrap()).unwrap();
        assert_eq!(files[0].path, "init");
        let names: Vec<&str> = files
            .iter()
            .filter_map(|file| file.path.rsplit('/').next())
            .collect();
        for name in ["ld-linux-x86-64.so.2", "libc.so.6"] {
            assert_eq!(
                names.iter().filter(|found| **found == name).count(),
                1,
                "{names:?}"
            );
        }
        assert!(names.contains(&"libgcc_s.so.1"), "{names:?}");
    }

    #[test]
    fn what_is_no_program_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("init");
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        let error = with_libraries(&path).err().unwrap();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.message().contains("x86-64"), "{error}");
    }
}
