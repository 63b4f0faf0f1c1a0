//! The sources as modules, and what each of them imports.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A file of `src/` without comments and without the unit tests at its end.
pub(crate) struct Module {
    /// Its path below `src/`.
    pub(crate) file: String,
    pub(crate) code: String,
    /// The names of the modules that lead to it; none for the crate itself.
    path: Vec<String>,
}

/// Returns all files, in the order of their paths.
pub(crate) fn modules() -> Vec<Module> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found: Vec<Module> = files_below(&root)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| {
            let file = path.strip_prefix(&root).unwrap().to_str().unwrap();
            Module {
                code: code_of(&fs::read_to_string(&path).unwrap()),
                path: path_of(file),
                file: file.to_owned(),
            }
        })
        .collect();
    assert!(found.len() > 100, "the sources are found");
    found.sort_by(|a, b| a.file.cmp(&b.file));
    found
}

/// Returns the files of a folder and of all folders in it.
pub(crate) fn files_below(root: &Path) -> Vec<PathBuf> {
    let mut folders = vec![root.to_owned()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found
}

fn code_of(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "#[cfg(test)]" {
            let of_tests = lines.next().unwrap_or_default();
            if of_tests.ends_with('{') {
                break;
            }
        } else if !line.trim_start().starts_with("//") {
            code.push_str(line);
            code.push('\n');
        }
    }
    code
}

fn path_of(file: &str) -> Vec<String> {
    let stem = file.trim_end_matches(".rs");
    let mut path: Vec<String> = stem.split('/').map(str::to_owned).collect();
    if ["mod", "lib", "main"].contains(&path[path.len() - 1].as_str()) {
        path.pop();
    }
    path
}

/// Each file with the files that it imports from.
///
/// What a module re-exports counts as imported from where it is defined. That a module names its
/// own children does not count: it declares them.
pub(crate) struct Imports(pub(crate) BTreeMap<String, BTreeSet<String>>);

impl Imports {
    /// Reads them from `use` declarations and from paths in the code.
    pub(crate) fn of(modules: &[Module]) -> Self {
        let named: BTreeMap<&[String], &Module> = modules
            .iter()
            .filter(|module| module.file != "main.rs")
            .map(|module| (&module.path[..], module))
            .collect();
        let mut exports = BTreeMap::new();
        for module in modules {
            let public = module.code.split("pub ").chain(module.code.split("pub(crate) "));
            for text in public.chain(module.code.split("pub(super) ")) {
                let Some(path) = text.strip_prefix("use ") else {
                    continue;
                };
                let path = path.split(';').next().unwrap_or_default();
                for path in paths(path, &module.path, &children(&module.code)) {
                    let name = path.last().cloned().unwrap_or_default();
                    exports.insert([&module.path[..], &[name]].concat(), path);
                }
            }
        }
        let imports = modules.iter().map(|module| {
            let imported = paths(&module.code, &module.path, &children(&module.code))
                .into_iter()
                .filter_map(|mut path| {
                    while let Some(origin) = exports.get(&path).filter(|origin| **origin != path) {
                        path.clone_from(origin);
                    }
                    (0..=path.len()).rev().find_map(|end| named.get(&path[..end]))
                })
                .filter(|other| !other.path.starts_with(&module.path))
                .map(|other| other.file.clone());
            (module.file.clone(), imported.collect())
        });
        Self(imports.collect())
    }

    /// Returns the groups of files that all import each other, directly or through others.
    pub(crate) fn cycles(&self) -> Vec<Vec<String>> {
        let reached: BTreeMap<&str, BTreeSet<&str>> =
            self.0.keys().map(|file| (file.as_str(), self.reached_from(file))).collect();
        let mut cycles: Vec<Vec<String>> = Vec::new();
        for (file, others) in &reached {
            let cycle: Vec<String> = others
                .iter()
                .filter(|other| reached[*other].contains(file))
                .map(|&other| other.to_owned())
                .collect();
            if cycle.len() > 1 && !cycles.contains(&cycle) {
                cycles.push(cycle);
            }
        }
        cycles
    }

    fn reached_from<'a>(&'a self, file: &str) -> BTreeSet<&'a str> {
        let mut reached = BTreeSet::new();
        let mut open: Vec<&str> = self.0[file].iter().map(String::as_str).collect();
        while let Some(next) = open.pop() {
            if reached.insert(next) {
                open.extend(self.0[next].iter().map(String::as_str));
            }
        }
        reached
    }
}

/// Returns the names of the modules that a file declares.
fn children(code: &str) -> Vec<&str> {
    code.lines()
        .filter_map(|line| line.trim().strip_suffix(';')?.rsplit_once("mod "))
        .map(|(_, name)| name)
        .collect()
}

/// Returns the absolute paths that a module names.
fn paths(code: &str, module: &[String], children: &[&str]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut before = ' ';
    let mut rest = code;
    while let Some(c) = rest.chars().next() {
        let is_start = !(before.is_alphanumeric() || before == '_' || before == ':');
        let name = leading_name(rest);
        if is_start && !name.is_empty() && rest[name.len()..].starts_with("::") {
            let base = match name {
                "crate" => Some(Vec::new()),
                "self" => Some(module.to_vec()),
                "super" => Some(module[..module.len().saturating_sub(1)].to_vec()),
                child if children.contains(&child) => Some([module, &[child.to_owned()]].concat()),
                _ => None,
            };
            if let Some(base) = base {
                tree(&rest[name.len() + 2..], base, &mut found);
            }
        }
        let step = name.len().max(c.len_utf8());
        before = rest[..step].chars().next_back().unwrap_or(' ');
        rest = &rest[step..];
    }
    found
}

fn leading_name(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    &text[..end]
}

/// Reads what follows `base::` and returns what is left behind it.
fn tree<'a>(text: &'a str, mut base: Vec<String>, found: &mut Vec<Vec<String>>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start();
            if let Some(behind) = rest.strip_prefix('}') {
                return behind;
            }
            let behind = tree(rest, base.clone(), found);
            let end = behind.find([',', '}']).unwrap_or(behind.len());
            rest = behind[end..].strip_prefix(',').unwrap_or(&behind[end..]);
            if rest.is_empty() {
                return rest;
            }
        }
    }
    let name = leading_name(text);
    match name {
        "super" => {
            base.pop();
        }
        "self" | "" => {}
        name => base.push(name.to_owned()),
    }
    let rest = &text[name.len()..];
    if let Some(more) = rest.strip_prefix("::") {
        tree(more, base, found)
    } else {
        found.push(base);
        rest
    }
}

#[test]
fn paths_are_read_from_declarations_and_expressions() {
    let module = ["a".to_owned(), "b".to_owned()];
    let code = "mod own;\nuse crate::x::{self, y::{Z, w as v}, k};\nfn f() { super::c::call::<u8>(std::mem::take(own::g())) }";
    let shown: Vec<String> =
        paths(code, &module, &children(code)).iter().map(|path| path.join("::")).collect();
    assert_eq!(shown, ["x", "x::y::Z", "x::y::w", "x::k", "a::c::call", "a::b::own::g"]);
}
