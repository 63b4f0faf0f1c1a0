//! `drop-schema`: a tenant's schema and row, after the slug was typed.

use std::fmt::Write as _;
use std::io::Write as _;

use super::run::app::{Access, App};
use super::run::jobs::alone;
use crate::domain::catalog::TenantCatalog as _;
use crate::domain::hint::Hint;
use crate::domain::tenant::{Hostname, Tenant};
use crate::error::{Exit, Failure};
use crate::postgres::tenants::drop::{Contents, DropError, Removal};
use crate::service::event::Operation;
use crate::service::selection::{find, nearest, target};
use crate::settings::Overrides;
use crate::ui::{Answer, clean, count, shell_word, size};

/// Drop a tenant: its schema with everything in it, its hosts, its row
///
/// Shows what would be lost and asks for the slug to be typed. Without a terminal it refuses
/// unless --force is given. Refuses when anything outside the schema depends on it. A drop
/// that was killed in the middle is finished by running it again; until then the tenant is
/// listed as dropping. With --trash nothing is lost: undrop brings the tenant back, purge ends it.
#[derive(clap::Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(super) struct Args {
    /// The tenant: slug, schema or host, exactly
    #[arg(long, short = 't', value_name = "TENANT")]
    tenant: String,
    /// Do not ask
    #[arg(long, visible_alias = "yes")]
    force: bool,
    /// Keep the row and the hosts, drop the schema only
    #[arg(long)]
    keep_record: bool,
    /// Put the tenant into the trash instead: pricesync undrop brings it back
    #[arg(long, conflicts_with_all = ["keep_record", "cascade_outside"])]
    trash: bool,
    /// Drop what depends on the schema from outside too, such as views in public
    #[arg(long)]
    cascade_outside: bool,
    /// How long a statement waits for a lock, such as 2s; 0 waits for ever
    #[arg(long, value_name = "TIME")]
    lock_timeout: Option<String>,
    /// How long to wait for a run that works on the schema
    #[arg(long, value_name = "TIME")]
    lock_wait: Option<String>,
}

impl Args {
    /// Notes the settings that were typed.
    pub(super) fn override_settings(&self, overrides: &mut Overrides) {
        overrides.set(
            "run.lock_timeout",
            "--lock-timeout",
            self.lock_timeout.as_deref(),
        );
        overrides.set("run.lock_wait", "--lock-wait", self.lock_wait.as_deref());
    }
}

/// Runs the command.
pub(super) async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let database = app.database(Access::Write, 3).await?;
    let catalog = app.catalog(&database);
    let tenant = named(&args.tenant, catalog.list().await?)?;
    let contents = catalog.contents(&tenant).await?;
    if !args.trash {
        contents.refuse_dependents(args.cascade_outside)?;
    }
    if !args.force {
        let question = describe(&tenant, &contents, args);
        let what = format!("dropping tenant '{}'", tenant.slug);
        confirm(&question, tenant.slug.as_str(), &what, app)?;
    }
    let engine_options = app.engine_options(&database);
    let mut out = app.terminal.out();
    let work = if args.trash { TRASH } else { DROP };
    let told = summary(&tenant, &contents);
    alone(app, work, (*target(&tenant)).clone(), async |progress| {
        let catalog = catalog.clone().telling(progress);
        if args.trash {
            let moved = catalog.trash(&tenant, &contents, &engine_options).await;
            moved.map_err(not_begun)?;
        } else {
            let removal = Removal {
                keep_record: args.keep_record,
                cascade_outside: args.cascade_outside,
            };
            let dropped = catalog.drop(&tenant, removal, &engine_options).await;
            dropped.map_err(not_finished)?;
        }
        Ok(((), measure(&contents)))
    })
    .await?;
    if args.trash {
        writeln!(out, "✓ Moved to the trash: {}", clean(&told))?;
        out.flush()?;
        let slug = shell_word(tenant.slug.as_str());
        app.terminal.hint(&Hint::command(
            "restore it",
            format!("undrop --tenant {slug}"),
        ));
        return Ok(Exit::Done);
    }
    writeln!(out, "✓ Dropped {}", clean(&told))?;
    out.flush()?;
    Ok(Exit::Done)
}

const DROP: Operation = Operation {
    command: "drop-schema",
    doing: "dropping",
    done: None,
};

const TRASH: Operation = Operation {
    command: "drop-schema --trash",
    doing: "moving to the trash",
    done: None,
};

/// What to do about a drop that may have begun.
pub(super) fn not_finished(error: DropError) -> Failure {
    match error {
        DropError::Catalog(error) => Failure::from(error),
        busy => Failure::from(busy).hint("nothing is lost: run the same command again to finish"),
    }
}

/// What to do about something that is done at once or not at all.
pub(super) fn not_begun(error: DropError) -> Failure {
    match error {
        DropError::Catalog(error) => Failure::from(error),
        busy => Failure::from(busy).hint("nothing was changed"),
    }
}

/// Has a word typed, or says why the command does nothing.
pub(super) fn confirm(
    question: &str,
    expected: &str,
    what: &str,
    app: &App,
) -> Result<(), Failure> {
    match app.terminal.confirm(question, expected)? {
        Answer::Yes => Ok(()),
        Answer::No => Err(Failure::words(
            Exit::Refused,
            "not confirmed; nothing was dropped",
        )),
        Answer::NotATerminal => Err(Failure::words(
            Exit::Refused,
            format!("{what} needs to be confirmed, and this is no terminal"),
        )
        .hint(question.lines().collect::<Vec<_>>().join(" "))
        .hint("--force drops without asking")),
    }
}

/// Returns the tenant that a word names exactly, or a failure with those that look like it.
pub(super) fn named(
    word: &str,
    list: crate::domain::tenant::TenantList,
) -> Result<Tenant, Failure> {
    let slugs: Vec<String> = list
        .tenants
        .iter()
        .map(|tenant| tenant.slug.to_string())
        .collect();
    find(word, list).map_err(|error| {
        let failure = Failure::from(error);
        match nearest(word, &slugs) {
            near if near.is_empty() => failure,
            near => failure.hint(format!("did you mean {}?", near.join(", "))),
        }
    })
}

fn describe(tenant: &Tenant, contents: &Contents, args: &Args) -> String {
    let hosts: Vec<&str> = tenant.hostnames.iter().map(Hostname::as_str).collect();
    let mut record = match (args.keep_record, hosts.is_empty()) {
        (true, _) => "its record is kept".to_owned(),
        (false, true) => "its record goes too".to_owned(),
        (false, false) => format!(
            "its record and {} go too: {}",
            count(hosts.len(), "host"),
            hosts.join(", ")
        ),
    };
    if !args.keep_record {
        for referrer in contents.referrers.iter().filter(|one| !one.keeps) {
            let _ = write!(record, "; rows of {} refer to it", referrer.table);
        }
    }
    for dependent in contents.dependents.iter().filter(|_| !args.trash) {
        let _ = write!(record, "; {}", dependent.description);
    }
    if contents.is_partial {
        record.push_str("; a table is locked, so rows elsewhere may be missing here");
    }
    let what = summary(tenant, contents);
    let what = if args.trash {
        format!("this moves {what} to the trash; {record}")
    } else {
        format!("this drops {what} for ever; {record}")
    };
    clean(&what).into_owned()
}

fn summary(tenant: &Tenant, contents: &Contents) -> String {
    if !contents.exists() {
        return format!(
            "tenant '{}' (its schema {} is gone already)",
            tenant.slug, tenant.schema
        );
    }
    let left = if contents.is_dropping() {
        "what is left of "
    } else {
        ""
    };
    format!(
        "tenant '{}': {left}schema {}, {}",
        tenant.slug,
        tenant.schema,
        measure(contents)
    )
}

/// How much is in a schema.
pub(super) fn measure(contents: &Contents) -> String {
    let rows = usize::try_from(contents.rows).unwrap_or(usize::MAX);
    // What nobody has analyzed has no size by the statistics.
    let by_statistics = if contents.is_partial {
        " by the server's statistics"
    } else {
        ""
    };
    format!(
        "{}, about {}, {}{by_statistics}",
        count(contents.tables, "table"),
        count(rows, "row"),
        size(contents.bytes)
    )
}
