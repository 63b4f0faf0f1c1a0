//! Service files: named sets of connection parameters (manual section 34.17).

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::error::ConnInfoError;
use super::keyword;
use super::parameters::{Origin, Parameters};

/// The system folders where `PGSYSCONFDIR` is not set: Debian's, then that of other systems.
const SYSTEM_FOLDERS: [&str; 2] = ["/etc/postgresql-common", "/etc"];

/// Sets parameters that the string does not have from the service that it or `PGSERVICE` names.
///
/// A service overrides environment variables, as in libpq. The user's file
/// (`servicefile`, `PGSERVICEFILE`, else `~/.pg_service.conf`) is read before the system's.
pub(super) fn fill(
    parameters: &mut Parameters,
    environment: &Environment,
) -> Result<(), ConnInfoError> {
    let service = match parameters.get("service") {
        Some(service) => service.to_owned(),
        None => match environment.text("PGSERVICE")? {
            Some(service) => {
                parameters.set("service", service, Origin::Environment("PGSERVICE"));
                service.to_owned()
            }
            None => return Ok(()),
        },
    };
    let file = parameters.get("servicefile").map(OsStr::new);
    let named = file.or_else(|| environment.variable("PGSERVICEFILE")).map(PathBuf::from);
    let mut candidates = Vec::new();
    // Only a file that is named explicitly must exist.
    let required = named.is_some();
    candidates.extend(named.or_else(|| environment.at_home(".pg_service.conf")));
    match environment.variable("PGSYSCONFDIR") {
        Some(folder) => candidates.push(Path::new(folder).join("pg_service.conf")),
        None => candidates
            .extend(SYSTEM_FOLDERS.iter().map(|folder| Path::new(folder).join("pg_service.conf"))),
    }

    let mut read = Vec::new();
    for (index, path) in candidates.into_iter().enumerate() {
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !(required && index == 0) => {
                continue;
            }
            Err(error) => return Err(ConnInfoError::UnreadableServiceFile { path, error }),
        };
        if fill_from(&text, &service, &path, parameters)? {
            return Ok(());
        }
        read.push(path);
    }
    Err(ConnInfoError::UnknownService { service, read })
}

/// Sets parameters from the service's section, and returns whether there is one.
fn fill_from(
    text: &str,
    service: &str,
    path: &Path,
    parameters: &mut Parameters,
) -> Result<bool, ConnInfoError> {
    let mut inside = false;
    for (index, line) in text.lines().enumerate() {
        let wrong =
            |what| ConnInfoError::ServiceFile { path: path.to_owned(), line: index + 1, what };
        let line = line.trim_matches(|c: char| c.is_ascii_whitespace());
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(section) = line.strip_prefix('[') {
            if inside {
                return Ok(true);
            }
            inside = section.strip_prefix(service).is_some_and(|after| after.starts_with(']'));
            continue;
        }
        if !inside {
            continue;
        }
        if line.starts_with("ldap") {
            return Err(wrong("a service cannot be looked up in LDAP"));
        }
        let (name, value) = line.split_once('=').ok_or_else(|| wrong("the line has no '='"))?;
        if matches!(name, "service" | "servicefile") {
            return Err(wrong("a service cannot refer to another service"));
        }
        // libpq allows no white space around '=' here; saying so beats an unknown parameter "host ".
        if name.ends_with(|c: char| c.is_ascii_whitespace()) {
            return Err(wrong("no space may stand before '='"));
        }
        let keyword =
            keyword::find(name).ok_or_else(|| wrong("an unknown connection parameter"))?;
        parameters.offer(keyword.name, value, Origin::Service(service.to_owned()));
    }
    Ok(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str =
        "# shared\n[other]\nhost=o\n\n[app]\n  host=h\nport=6000\r\nuser=\n[app]\nhost=late\n";

    fn read(text: &str, service: &str) -> Result<Option<Parameters>, ConnInfoError> {
        let mut parameters = Parameters::default();
        parameters.set("user", "given", Origin::Text);
        fill_from(text, service, Path::new("s.conf"), &mut parameters)
            .map(|found| found.then_some(parameters))
    }

    #[test]
    fn the_first_section_of_that_name_fills_what_the_text_left_open() {
        let parameters = read(FILE, "app").expect("valid").expect("found");
        assert_eq!(parameters.get("host"), Some("h"));
        assert_eq!(parameters.get("port"), Some("6000"));
        assert_eq!(parameters.get("user"), Some("given"));
        assert_eq!(parameters.origin("host"), &Origin::Service("app".to_owned()));
        assert!(read(FILE, "ap").expect("valid").is_none());
    }

    #[test]
    fn a_bad_line_is_named_by_number_and_not_quoted() {
        for text in
            ["[a]\nhunter2\n", "[a]\npassword =hunter2\n", "[a]\nhunter2=x\n", "[a]\nservice=b\n"]
        {
            let error = read(text, "a").map(|_| ()).expect_err(text).to_string();
            assert!(error.starts_with("s.conf:2: "), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
