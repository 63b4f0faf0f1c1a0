//! Which tenants a person means.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use globset::{Glob, GlobMatcher};

use crate::domain::schema_name::SchemaName;
use crate::domain::script::Scope;
use crate::domain::target::Target;
use crate::domain::tenant::{CatalogError, Hostname, RefusedRow, Tenant, TenantList};

/// What was said about which tenants: words, a file, a set of schemas.
///
/// A word names a tenant by slug, schema or host, always exactly; a word with `*`, `?`,
/// `[` or `{` is a glob over the same three. Never an index, never a prefix.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Words that choose; without them and without a file every tenant is chosen.
    pub include: Vec<String>,
    /// What a file lists, chosen as well.
    pub listed: Option<Listed>,
    /// Nobody but these, when it was asked for.
    pub only: Option<HashSet<SchemaName>>,
    /// Words that take away again.
    pub exclude: Vec<String>,
}

/// Names from a file, one on a line, each exactly; no globs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// The file, as people call it.
    pub file: String,
    /// The names, with the number of the line, from 1.
    pub names: Vec<(usize, String)>,
}

impl Listed {
    /// Reads the text of a file. Blank lines and lines that begin with `#` name nobody; line
    /// ends may be CR LF.
    #[must_use]
    pub fn parse(file: &str, text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let names = (1..)
            .zip(text.lines().map(str::trim))
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
            .map(|(number, line)| (number, line.to_owned()))
            .collect();
        Self {
            file: file.to_owned(),
            names,
        }
    }
}

/// Why a selection cannot be made.
#[derive(Debug)]
#[non_exhaustive]
pub enum SelectionError {
    /// These words name no tenant; with each the slugs that look most like it.
    Unknown(Vec<(String, Vec<String>)>),
    /// The same for these lines of this file.
    UnknownLines(String, Vec<(usize, String)>),
    /// These words name none of the tenants that were chosen.
    NotChosen(Vec<String>),
    /// This word is not a glob.
    BadGlob(String, String),
}

/// So many unknown lines of a file are named.
const LINES: usize = 10;

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
                "none of the chosen tenants has the slug, schema or host {}",
                quoted(&mut words.iter())
            ),
            Self::UnknownLines(file, lines) => {
                let shown: Vec<String> = lines
                    .iter()
                    .take(LINES)
                    .map(|(number, word)| format!("'{word}' (line {number})"))
                    .collect();
                write!(
                    f,
                    "{file}: no tenant has the slug, schema or host {}",
                    shown.join(", ")
                )?;
                match lines.len().saturating_sub(LINES) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
            Self::BadGlob(word, why) => write!(f, "'{word}' is not a glob: {why}"),
        }
    }
}

impl std::error::Error for SelectionError {}

/// Words, ready to be asked about many tenants; notes which of them matched.
#[derive(Default)]
struct Words {
    exact: HashMap<String, Vec<usize>>,
    hosts: HashMap<Hostname, Vec<usize>>,
    globs: Vec<(GlobMatcher, usize)>,
    used: Vec<bool>,
}

impl Words {
    fn parse(texts: &[String]) -> Result<Self, SelectionError> {
        let mut words = Self::default();
        for text in texts {
            if text.contains(['*', '?', '[', '{']) {
                let glob = Glob::new(text).map_err(|error| {
                    SelectionError::BadGlob(text.clone(), error.kind().to_string())
                })?;
                words.globs.push((glob.compile_matcher(), words.used.len()));
                words.used.push(false);
            } else {
                words.add(text);
            }
        }
        Ok(words)
    }

    /// Adds a word that is no glob, whatever it looks like.
    fn add(&mut self, text: &str) {
        let number = self.used.len();
        self.used.push(false);
        // Nobody is called nothing, whatever a row says.
        if text.is_empty() {
            return;
        }
        self.exact.entry(text.to_owned()).or_default().push(number);
        if let Ok(host) = Hostname::parse(text) {
            self.hosts.entry(host).or_default().push(number);
        }
    }

    /// Returns whether some word names the tenant.
    fn name(&mut self, tenant: &Tenant) -> bool {
        let names = [tenant.slug.as_str(), tenant.schema.as_str()];
        let exact = names.iter().filter_map(|name| self.exact.get(*name));
        let hosts = tenant.hostnames.iter();
        let by_host = hosts.clone().filter_map(|host| {
            // Somebody else may have written it into the catalog as people write it.
            let same = || self.hosts.get(&Hostname::parse(host.as_str()).ok()?);
            self.hosts.get(host).or_else(|| {
                let is_normal = |c: char| c.is_ascii() && !c.is_ascii_uppercase();
                if host.as_str().chars().all(is_normal) {
                    None
                } else {
                    same()
                }
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

    /// The same without globs.
    fn unused_names(&self) -> impl Iterator<Item = usize> {
        let is_glob = |number: usize| self.globs.iter().any(|(_, glob)| *glob == number);
        self.unused().filter(move |&number| !is_glob(number))
    }
}

impl Selection {
    /// Returns whether every tenant is meant.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.include.is_empty()
            && self.listed.is_none()
            && self.only.is_none()
            && self.exclude.is_empty()
    }

    /// Returns the tenants that are meant, in the order of the catalog: those that a word or
    /// the file names, of them only those that `only` has, without those that are excluded.
    ///
    /// # Errors
    ///
    /// A word that names nobody is an error, a glob too, and a line of the file: a script
    /// that names a tenant must not succeed without it. So is a name that excludes nobody, not
    /// even a row that no command works on. That nobody is left is none.
    pub fn choose(
        &self,
        mut tenants: Vec<Tenant>,
        refused: &[RefusedRow],
    ) -> Result<Vec<Tenant>, SelectionError> {
        let (mut include, mut exclude) =
            (Words::parse(&self.include)?, Words::parse(&self.exclude)?);
        let mut lines = Words::default();
        for (_, name) in self.listed.iter().flat_map(|listed| &listed.names) {
            lines.add(name);
        }
        let everybody = self.include.is_empty() && self.listed.is_none();
        let wanted: Vec<bool> = tenants
            .iter()
            .map(|tenant| {
                // Both are asked: each notes which of its words matched.
                let named = [include.name(tenant), lines.name(tenant)].contains(&true);
                let excluded = exclude.name(tenant);
                let only = self.only.as_ref();
                (everybody || named)
                    && only.is_none_or(|only| only.contains(&tenant.schema))
                    && !excluded
            })
            .collect();
        let unknown = include.unused().map(|number| &self.include[number]);
        // A glob may leave out those who are not there yet; a name that is mistyped leaves out nobody.
        let is_refused = |name: &&String| {
            let is_its = |row: &RefusedRow| row.slug == **name || row.schema == **name;
            refused.iter().any(is_its)
        };
        let excluded = exclude.unused_names().map(|number| &self.exclude[number]);
        let unknown: Vec<&String> = unknown
            .chain(excluded.filter(|name| !is_refused(name)))
            .collect();
        if !unknown.is_empty() {
            let slugs: Vec<String> = tenants
                .iter()
                .map(|tenant| tenant.slug.to_string())
                .collect();
            let near = |word: &String| (word.clone(), nearest(word, &slugs));
            return Err(SelectionError::Unknown(
                unknown.into_iter().map(near).collect(),
            ));
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

    /// Returns which of tenants that were chosen otherwise its words name; none without words.
    ///
    /// # Errors
    ///
    /// [`SelectionError::NotChosen`] for words that name none of them, if there are any.
    pub fn among(&self, chosen: &[Tenant]) -> Result<Vec<bool>, SelectionError> {
        let mut words = Words::parse(&self.include)?;
        let named = chosen.iter().map(|tenant| words.name(tenant)).collect();
        let unknown: Vec<String> = words
            .unused()
            .map(|number| self.include[number].clone())
            .collect();
        if unknown.is_empty() || chosen.is_empty() {
            Ok(named)
        } else {
            Err(SelectionError::NotChosen(unknown))
        }
    }
}

/// Returns at most three slugs that look like `word`, the likest first.
#[must_use]
pub fn nearest(word: &str, slugs: &[String]) -> Vec<String> {
    let mut likely: Vec<(f64, &String)> = slugs
        .iter()
        .map(|slug| (strsim::jaro_winkler(slug, word), slug))
        .filter(|(likeness, _)| *likeness > 0.8)
        .collect();
    likely.sort_by(|a, b| b.0.total_cmp(&a.0));
    likely
        .into_iter()
        .take(3)
        .map(|(_, slug)| slug.clone())
        .collect()
}

/// Returns the tenant that one word names, exactly.
///
/// # Errors
///
/// [`CatalogError::NotFound`] when there is none, [`CatalogError::Ambiguous`] when there are several.
pub fn find(word: &str, list: TenantList) -> Result<Tenant, CatalogError> {
    let mut exact = Words::default();
    exact.add(word);
    let mut named = list.tenants;
    named.retain(|tenant| exact.name(tenant));
    if named.len() > 1 {
        let schemas = named.iter().map(|tenant| tenant.schema.to_string());
        return Err(CatalogError::Ambiguous(word.to_owned(), schemas.collect()));
    }
    named
        .pop()
        .ok_or_else(|| CatalogError::NotFound(word.to_owned()))
}

/// Returns what a run works on for a tenant.
#[must_use]
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
    use crate::domain::tenant::Slug;

    pub(crate) fn tenant(id: i64, slug: &str) -> Tenant {
        Tenant {
            id,
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

    fn everybody() -> Vec<Tenant> {
        let tenants = ["acme", "acme2", "globex", "3"];
        (1..)
            .zip(tenants)
            .map(|(id, slug)| tenant(id, slug))
            .collect()
    }

    fn chosen_by(selection: &Selection) -> Result<Vec<String>, String> {
        selection
            .choose(everybody(), &[])
            .map(|chosen| chosen.iter().map(|t| t.slug.to_string()).collect())
            .map_err(|error| error.to_string())
    }

    fn listed(text: &str) -> Selection {
        Selection {
            listed: Some(Listed::parse("some.txt", text)),
            ..Selection::default()
        }
    }

    #[test]
    fn a_tenant_is_named_by_slug_schema_or_host() {
        for word in [
            "acme",
            "tenant_acme",
            "acme.example.com",
            "ACME.example.com:8000",
        ] {
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
    fn globs_choose_and_exclude_takes_away() {
        assert_eq!(choose(&["acme*"], &["acme2"]), Ok(vec!["acme".to_owned()]));
        assert_eq!(
            choose(&[], &["tenant_a*", "3"]),
            Ok(vec!["globex".to_owned()])
        );
    }

    #[test]
    fn every_word_must_name_something() {
        assert_eq!(
            choose(&["acme", "initech", "x*"], &[]),
            Err("no tenant has the slug, schema or host 'initech', 'x*'".to_owned())
        );
        assert!(choose(&["acm"], &[]).is_err(), "a prefix is not a name");
    }

    #[test]
    fn a_typing_error_is_answered_with_the_nearest_slugs() {
        let slugs = ["acme", "globex"].map(str::to_owned);
        assert_eq!(nearest("acmee", &slugs), ["acme"]);
        assert!(nearest("zzz", &slugs).is_empty());
    }
    #[test]
    fn a_file_names_tenants_line_by_line() {
        let file = "\u{feff}# the large ones\r\nglobex\r\n\r\n  ACME.example.com  \n";
        assert_eq!(
            chosen_by(&listed(file)),
            Ok(vec!["acme".to_owned(), "globex".to_owned()])
        );
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
    fn a_file_that_names_nobody_chooses_nobody() {
        assert_eq!(chosen_by(&listed("# nobody today\n")), Ok(Vec::new()));
    }

    #[test]
    fn selectors_combine_words_and_file_then_narrow_then_take_away() {
        let schema = |slug: &str| SchemaName::parse(&format!("tenant_{slug}")).expect("legal");
        let mut selection = Selection {
            include: vec!["acme*".to_owned()],
            only: Some(["acme", "globex", "3"].map(schema).into()),
            exclude: vec!["globex".to_owned()],
            ..listed("3\nglobex")
        };
        assert_eq!(
            chosen_by(&selection),
            Ok(vec!["acme".to_owned(), "3".to_owned()])
        );
        selection.only = Some(HashSet::new());
        assert_eq!(chosen_by(&selection), Ok(Vec::new()));
    }

    #[test]
    fn canaries_are_named_among_the_chosen() {
        let canary = |word: &str| Selection {
            include: vec![word.to_owned()],
            ..Selection::default()
        };
        let named = canary("acme*").among(&everybody()).expect("two of them");
        assert_eq!(named, [true, true, false, false]);
        let error = canary("initech").among(&everybody()).expect_err("nobody");
        assert_eq!(
            error.to_string(),
            "none of the chosen tenants has the slug, schema or host 'initech'"
        );
        assert!(canary("initech").among(&[]).is_ok(), "nobody is chosen");
        assert!(
            Selection::default()
                .among(&everybody())
                .is_ok_and(|named| !named.contains(&true))
        );
    }
}
