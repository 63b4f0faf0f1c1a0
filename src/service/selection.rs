//! Selects tenants by patterns, a file or `--where`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use globset::{Glob, GlobMatcher};

use crate::domain::catalog::CatalogError;
use crate::domain::schema_name::SchemaName;
use crate::domain::script::Scope;
use crate::domain::target::Target;
use crate::domain::tenant::{Hostname, RefusedRow, Tenant, TenantList};

/// Which tenants a command applies to.
///
/// A pattern matches the slug, schema or host of a tenant exactly; with `*`, `?`, `[` or `{` it is a
/// glob over the same three.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Patterns of `--tenant`; without these and without a file all tenants are selected.
    pub include: Vec<String>,
    /// Names of `--from-file`, selected too.
    pub listed: Option<Listed>,
    /// Schemas that match `--where`; no others are selected.
    pub only: Option<HashSet<SchemaName>>,
    /// Patterns of `--exclude`.
    pub exclude: Vec<String>,
}

/// Names from a file, one on a line; no globs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// The file's name for error messages.
    pub file: String,
    /// The names, with the number of the line, from 1.
    pub names: Vec<(usize, String)>,
}

impl Listed {
    /// Parses the text of a file. Ignores blank lines and lines that start with `#`; line ends may
    /// be CR LF.
    pub fn parse(file: &str, text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let names = (1..)
            .zip(text.lines().map(str::trim))
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
            .map(|(number, line)| (number, line.to_owned()))
            .collect();
        Self { file: file.to_owned(), names }
    }
}

/// Why a selection is invalid.
#[derive(Debug)]
#[non_exhaustive]
pub enum SelectionError {
    /// These patterns match no tenant; each with the most similar slugs.
    Unknown(Vec<(String, Vec<String>)>),
    /// These lines of this file match no tenant.
    UnknownLines(String, Vec<(usize, String)>),
    /// These patterns match none of the selected tenants.
    NotChosen(Vec<String>),
    /// A pattern is not a valid glob; holds the reason.
    BadGlob(String, String),
}

/// How many unknown lines of a file are named in the error.
const SHOWN_LINES: usize = 10;

impl std::fmt::Display for SelectionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let quoted = |words: &mut dyn Iterator<Item = &String>| {
            let words: Vec<String> = words.map(|word| format!("'{word}'")).collect();
            words.join(", ")
        };
        match self {
            Self::Unknown(words) => write!(
                f,
                "no tenant has the slug, schema or host {}",
                quoted(&mut words.iter().map(|(word, _)| word))
            ),
            Self::NotChosen(words) => write!(
                f,
                "none of the selected tenants has the slug, schema or host {}",
                quoted(&mut words.iter())
            ),
            Self::UnknownLines(file, lines) => {
                let shown: Vec<String> = lines
                    .iter()
                    .take(SHOWN_LINES)
                    .map(|(number, word)| format!("'{word}' (line {number})"))
                    .collect();
                write!(f, "{file}: no tenant has the slug, schema or host {}", shown.join(", "))?;
                match lines.len().saturating_sub(SHOWN_LINES) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
            Self::BadGlob(word, why) => write!(f, "invalid glob '{word}': {why}"),
        }
    }
}

impl std::error::Error for SelectionError {}

/// Compiled patterns; remembers which of them matched a tenant.
#[derive(Default)]
struct Patterns {
    exact: HashMap<String, Vec<usize>>,
    hosts: HashMap<Hostname, Vec<usize>>,
    globs: Vec<(GlobMatcher, usize)>,
    used: Vec<bool>,
}

impl Patterns {
    fn parse(texts: &[String]) -> Result<Self, SelectionError> {
        let mut patterns = Self::default();
        for text in texts {
            if text.contains(['*', '?', '[', '{']) {
                let glob = Glob::new(text).map_err(|error| {
                    SelectionError::BadGlob(text.clone(), error.kind().to_string())
                })?;
                patterns.globs.push((glob.compile_matcher(), patterns.used.len()));
                patterns.used.push(false);
            } else {
                patterns.add(text);
            }
        }
        Ok(patterns)
    }

    /// Adds a name that is never a glob.
    fn add(&mut self, text: &str) {
        let number = self.used.len();
        self.used.push(false);
        // A row without a slug must not match an empty pattern.
        if text.is_empty() {
            return;
        }
        self.exact.entry(text.to_owned()).or_default().push(number);
        if let Ok(host) = Hostname::parse(text) {
            self.hosts.entry(host).or_default().push(number);
        }
    }

    /// Returns whether a pattern matches the tenant.
    fn matches(&mut self, tenant: &Tenant) -> bool {
        let names = [tenant.slug.as_str(), tenant.schema.as_str()];
        let exact = names.iter().filter_map(|name| self.exact.get(*name));
        let hosts = tenant.hostnames.iter();
        let by_host = hosts.clone().filter_map(|host| {
            // Another tool may have stored the host in upper case or Unicode.
            self.hosts.get(host).or_else(|| {
                let is_normal = |c: char| c.is_ascii() && !c.is_ascii_uppercase();
                let needs_normalizing = !host.as_str().chars().all(is_normal);
                let normalized = needs_normalizing.then(|| Hostname::parse(host.as_str()).ok());
                self.hosts.get(&normalized??)
            })
        });
        let globs = self.globs.iter().filter(|(glob, _)| {
            names.iter().any(|name| glob.is_match(name))
                || hosts.clone().any(|host| glob.is_match(host.as_str()))
        });
        let mut any = false;
        let matching = exact.chain(by_host).flatten().copied();
        for number in matching.chain(globs.map(|(_, number)| *number)) {
            self.used[number] = true;
            any = true;
        }
        any
    }

    fn unused(&self) -> impl Iterator<Item = usize> {
        (0..self.used.len()).filter(|&number| !self.used[number])
    }

    /// Returns the positions of exact names that matched no tenant.
    fn unused_names(&self) -> impl Iterator<Item = usize> {
        let is_glob = |number: usize| self.globs.iter().any(|(_, glob)| *glob == number);
        self.unused().filter(move |&number| !is_glob(number))
    }
}

impl Selection {
    /// Returns whether all tenants are selected.
    pub fn is_everything(&self) -> bool {
        self.include.is_empty()
            && self.listed.is_none()
            && self.only.is_none()
            && self.exclude.is_empty()
    }

    /// Returns the selected tenants, in the order of the catalog: those that a pattern or the file
    /// names, restricted to `only`, without the excluded ones. May be empty.
    ///
    /// # Errors
    ///
    /// A pattern or a line of the file that matches no tenant, so that a typo cannot silently skip
    /// one. So is a name in `exclude` that matches neither a tenant nor a refused row; a glob there
    /// may match nothing.
    pub fn choose(
        &self,
        mut tenants: Vec<Tenant>,
        refused: &[RefusedRow],
    ) -> Result<Vec<Tenant>, SelectionError> {
        let (mut include, mut exclude) =
            (Patterns::parse(&self.include)?, Patterns::parse(&self.exclude)?);
        let mut lines = Patterns::default();
        for (_, name) in self.listed.iter().flat_map(|listed| &listed.names) {
            lines.add(name);
        }
        let is_all = self.include.is_empty() && self.listed.is_none();
        let wanted: Vec<bool> = tenants
            .iter()
            .map(|tenant| {
                // No short circuit: each remembers which of its patterns matched.
                let named = [include.matches(tenant), lines.matches(tenant)].contains(&true);
                let excluded = exclude.matches(tenant);
                let only = self.only.as_ref();
                (is_all || named)
                    && only.is_none_or(|only| only.contains(&tenant.schema))
                    && !excluded
            })
            .collect();
        let unknown = include.unused().map(|number| &self.include[number]);
        let is_refused = |name: &&String| {
            let is_its = |row: &RefusedRow| row.slug == **name || row.schema == **name;
            refused.iter().any(is_its)
        };
        let excluded = exclude.unused_names().map(|number| &self.exclude[number]);
        let unknown: Vec<&String> =
            unknown.chain(excluded.filter(|name| !is_refused(name))).collect();
        if !unknown.is_empty() {
            let slugs: Vec<String> = tenants.iter().map(|tenant| tenant.slug.to_string()).collect();
            let near = |word: &String| (word.clone(), nearest(word, &slugs));
            return Err(SelectionError::Unknown(unknown.into_iter().map(near).collect()));
        }
        if let Some(listed) = &self.listed {
            let unknown: Vec<_> = lines.unused().map(|at| listed.names[at].clone()).collect();
            if !unknown.is_empty() {
                return Err(SelectionError::UnknownLines(listed.file.clone(), unknown));
            }
        }
        let mut wanted = wanted.into_iter();
        tenants.retain(|_| wanted.next().unwrap_or_default());
        Ok(tenants)
    }

    /// Returns for each of the selected tenants whether a pattern of `include` matches it.
    ///
    /// # Errors
    ///
    /// [`SelectionError::NotChosen`] for patterns that match none of them, unless none is selected.
    pub fn among(&self, chosen: &[Tenant]) -> Result<Vec<bool>, SelectionError> {
        let mut patterns = Patterns::parse(&self.include)?;
        let named = chosen.iter().map(|tenant| patterns.matches(tenant)).collect();
        let unknown: Vec<String> =
            patterns.unused().map(|number| self.include[number].clone()).collect();
        if unknown.is_empty() || chosen.is_empty() {
            Ok(named)
        } else {
            Err(SelectionError::NotChosen(unknown))
        }
    }
}

/// Returns at most three slugs similar to `word`, the most similar first.
pub fn nearest(word: &str, slugs: &[String]) -> Vec<String> {
    let mut similar: Vec<(f64, &String)> = slugs
        .iter()
        .map(|slug| (strsim::jaro_winkler(slug, word), slug))
        .filter(|(similarity, _)| *similarity > 0.8)
        .collect();
    similar.sort_by(|a, b| b.0.total_cmp(&a.0));
    similar.into_iter().take(3).map(|(_, slug)| slug.clone()).collect()
}

/// Returns the tenant whose slug, schema or host is `word`.
///
/// # Errors
///
/// [`CatalogError::NotFound`] when there is none, [`CatalogError::Ambiguous`] when there are several.
pub fn find(word: &str, list: TenantList) -> Result<Tenant, CatalogError> {
    let mut exact = Patterns::default();
    exact.add(word);
    let mut named = list.tenants;
    named.retain(|tenant| exact.matches(tenant));
    if named.len() > 1 {
        let schemas = named.iter().map(|tenant| tenant.schema.to_string());
        return Err(CatalogError::Ambiguous(word.to_owned(), schemas.collect()));
    }
    named.pop().ok_or_else(|| CatalogError::NotFound(word.to_owned()))
}

/// Returns the target for a tenant's schema.
pub fn target(tenant: &Tenant) -> Arc<Target> {
    Arc::new(Target {
        schema: tenant.schema.clone(),
        label: tenant.slug.as_str().to_owned(),
        scope: Scope::Tenant,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::domain::schema_name::SchemaName;
    use crate::domain::tenant::{Slug, TenantId};

    pub(crate) fn tenant(id: i64, slug: &str) -> Tenant {
        Tenant {
            id: TenantId::new(id.to_string()),
            name: slug.to_owned(),
            slug: Slug::from_catalog(slug.to_owned()),
            schema: SchemaName::parse(&format!("tenant_{slug}")).expect("legal"),
            hostnames: vec![Hostname::from_catalog(format!("{slug}.example.com"))],
            created_at: None,
        }
    }

    fn choose(include: &[&str], exclude: &[&str]) -> Result<Vec<String>, String> {
        let selection = Selection {
            include: include.iter().map(|&word| word.to_owned()).collect(),
            exclude: exclude.iter().map(|&word| word.to_owned()).collect(),
            ..Selection::default()
        };
        chosen_by(&selection)
    }

    fn tenants() -> Vec<Tenant> {
        let tenants = ["acme", "acme2", "globex", "3"];
        (1..).zip(tenants).map(|(id, slug)| tenant(id, slug)).collect()
    }

    fn chosen_by(selection: &Selection) -> Result<Vec<String>, String> {
        selection
            .choose(tenants(), &[])
            .map(|chosen| chosen.iter().map(|t| t.slug.to_string()).collect())
            .map_err(|error| error.to_string())
    }

    fn listed(text: &str) -> Selection {
        Selection { listed: Some(Listed::parse("some.txt", text)), ..Selection::default() }
    }

    #[test]
    fn a_pattern_matches_slug_schema_or_host() {
        for word in ["acme", "tenant_acme", "acme.example.com", "ACME.example.com:8000"] {
            assert_eq!(choose(&[word], &[]), Ok(vec!["acme".to_owned()]), "{word}");
        }
    }

    #[test]
    fn a_number_is_a_slug_and_never_an_index() {
        assert_eq!(choose(&["3"], &[]), Ok(vec!["3".to_owned()]));
        assert_eq!(
            choose(&["1"], &[]),
            Err("no tenant has the slug, schema or host '1'".to_owned())
        );
    }

    #[test]
    fn globs_select_and_exclude_removes() {
        assert_eq!(choose(&["acme*"], &["acme2"]), Ok(vec!["acme".to_owned()]));
        assert_eq!(choose(&[], &["tenant_a*", "3"]), Ok(vec!["globex".to_owned()]));
    }

    #[test]
    fn every_pattern_must_match_a_tenant() {
        assert_eq!(
            choose(&["acme", "initech", "x*"], &[]),
            Err("no tenant has the slug, schema or host 'initech', 'x*'".to_owned())
        );
        assert!(choose(&["acm"], &[]).is_err(), "a prefix is not a name");
    }

    #[test]
    fn a_typo_suggests_similar_slugs() {
        let slugs = ["acme", "globex"].map(str::to_owned);
        assert_eq!(nearest("acmee", &slugs), ["acme"]);
        assert!(nearest("zzz", &slugs).is_empty());
    }
    #[test]
    fn a_file_names_tenants_line_by_line() {
        let file = "\u{feff}# the large ones\r\nglobex\r\n\r\n  ACME.example.com  \n";
        assert_eq!(chosen_by(&listed(file)), Ok(vec!["acme".to_owned(), "globex".to_owned()]));
        assert_eq!(
            chosen_by(&listed("globex\nacme*\n\ninitech")),
            Err(
                "some.txt: no tenant has the slug, schema or host 'acme*' (line 2), 'initech' (line 4)"
                    .to_owned()
            ),
            "no globs in files"
        );
    }

    #[test]
    fn an_empty_file_selects_no_tenant() {
        assert_eq!(chosen_by(&listed("# empty today\n")), Ok(Vec::new()));
    }

    #[test]
    fn patterns_and_file_add_where_restricts_exclude_removes() {
        let schema = |slug: &str| SchemaName::parse(&format!("tenant_{slug}")).expect("legal");
        let mut selection = Selection {
            include: vec!["acme*".to_owned()],
            only: Some(["acme", "globex", "3"].map(schema).into()),
            exclude: vec!["globex".to_owned()],
            ..listed("3\nglobex")
        };
        assert_eq!(chosen_by(&selection), Ok(vec!["acme".to_owned(), "3".to_owned()]));
        selection.only = Some(HashSet::new());
        assert_eq!(chosen_by(&selection), Ok(Vec::new()));
    }

    #[test]
    fn canaries_are_matched_among_the_selected() {
        let canary =
            |word: &str| Selection { include: vec![word.to_owned()], ..Selection::default() };
        let named = canary("acme*").among(&tenants()).expect("two of them");
        assert_eq!(named, [true, true, false, false]);
        let error = canary("initech").among(&tenants()).expect_err("no tenant");
        assert_eq!(
            error.to_string(),
            "none of the selected tenants has the slug, schema or host 'initech'"
        );
        assert!(canary("initech").among(&[]).is_ok(), "no tenant is selected");
        assert!(Selection::default().among(&tenants()).is_ok_and(|named| !named.contains(&true)));
    }
}
