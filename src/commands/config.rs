//! `config`: the effective settings and their origins.

use super::args::output::OutputArg;
use super::run::CommandRun;
use super::run::app::App;
use crate::error::{Exit, Failure};
use crate::postgres::connection::conninfo::{ConnectOptions, Environment};
use crate::ui::{Cell, Listing};

/// Show every setting with its origin; secrets are masked
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    #[command(flatten)]
    output: OutputArg,
}

impl CommandRun for Args {
    async fn run(&self, app: &App) -> Result<Exit, Failure> {
        let listing = Listing::new(&["key", "value", "origin"], "no settings");
        let mut rows: Vec<Vec<Cell>> = app
            .settings
            .effective()
            .iter()
            .map(|effective| {
                let value = effective.value.as_deref().map(|value| {
                    if effective.key.starts_with("database.") {
                        without_password(value)
                    } else {
                        value.to_owned()
                    }
                });
                vec![
                    Cell::Text(effective.key.to_owned()),
                    Cell::maybe(value),
                    Cell::Text(effective.origin.to_string()),
                ]
            })
            .collect();
        rows.extend(connection(app)?);
        listing.write(&app.terminal, self.output.format(), rows)?;
        Ok(Exit::Done)
    }
}

/// Returns the connection parameters as libpq's rules resolve them.
fn connection(app: &App) -> Result<Vec<Vec<Cell>>, Failure> {
    let text = app.settings.database_url.as_deref();
    let environment = Environment::from_process();
    if text == Some(super::run::app::LOCAL) || (text.is_none() && !environment.names_a_database()) {
        return Ok(Vec::new());
    }
    let options = ConnectOptions::resolve(text, &environment)
        .map_err(|error| Failure::new(Exit::Usage, error))?;
    let mut rows: Vec<Vec<Cell>> = options
        .parameters()
        .map(|(word, value, origin)| {
            vec![
                Cell::Text(format!("connection.{word}")),
                Cell::Text(value),
                Cell::Text(with_dotenv(origin.to_string(), app)),
            ]
        })
        .collect();
    rows.push(vec![
        Cell::Text("connection".to_owned()),
        Cell::Text(options.describe()),
        Cell::Text(options.protection().to_string()),
    ]);
    Ok(rows)
}

/// Returns the origin with the `.env` file, if that sets the variable.
fn with_dotenv(origin: String, app: &App) -> String {
    let dotenv = app.settings.dotenv.as_ref();
    let from_file = dotenv.filter(|file| file.names.contains(&origin));
    match from_file {
        Some(file) => format!("{origin} in {}", file.path.display()),
        None => origin,
    }
}

/// Returns a URL or a key=value string with its passwords masked.
fn without_password(text: &str) -> String {
    if let Some((scheme, rest)) = text.split_once("://") {
        let rest = match rest.rsplit_once('@') {
            Some((user, host)) => match user.split_once(':') {
                Some((user, _)) => format!("{user}:********@{host}"),
                None => format!("{user}@{host}"),
            },
            None => rest.to_owned(),
        };
        let rest = match rest.split_once('?') {
            Some((place, query)) => {
                let shown: Vec<String> = query.split('&').map(mask).collect();
                format!("{place}?{}", shown.join("&"))
            }
            None => rest,
        };
        return format!("{scheme}://{rest}");
    }
    if text.contains("password") {
        return "******** (key=value string with a password; see connection.*)".to_owned();
    }
    text.to_owned()
}

fn mask(word: &str) -> String {
    match word.split_once('=') {
        Some((key, _)) if key.to_lowercase().contains("password") => format!("{key}=********"),
        _ => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::without_password;

    #[test]
    fn passwords_are_masked_in_urls_and_key_value_strings() {
        assert_eq!(
            without_password("postgresql://app:p%40ss@db/x?sslmode=require"),
            "postgresql://app:********@db/x?sslmode=require"
        );
        assert_eq!(
            without_password("postgresql://app@db/x?password=s&sslpassword=t"),
            "postgresql://app@db/x?password=********&sslpassword=********"
        );
        assert!(!without_password("host=db password='a b'").contains("a b"));
        assert_eq!(without_password("local"), "local");
    }
}
