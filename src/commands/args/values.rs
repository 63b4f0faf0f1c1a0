//! The values of options whose types belong to rooms that do not know clap.

use clap::ValueEnum;
use clap::builder::PossibleValue;

use crate::migrations::lint::Severity;
use crate::ui::{ColorChoice, OutputFormat, ProgressMode};

macro_rules! value_enum {
    ($type:ident: $($variant:ident $name:literal $help:literal,)*) => {
        impl ValueEnum for $type {
            fn value_variants<'a>() -> &'a [Self] {
                &[$(Self::$variant),*]
            }

            fn to_possible_value(&self) -> Option<PossibleValue> {
                Some(match self {
                    $(Self::$variant => PossibleValue::new($name).help($help),)*
                })
            }
        }
    };
}

value_enum! { ProgressMode:
    Auto "auto" "Bars on a terminal, else lines",
    Bars "bars" "One bar for the run and a line for each running schema",
    Lines "lines" "A line for each event",
    Json "json" "JSON lines on stderr",
    None "none" "Only failures and the summary",
}

value_enum! { ColorChoice:
    Auto "auto" "On terminals, unless `NO_COLOR` is set",
    Always "always" "Always",
    Never "never" "Never",
}

value_enum! { OutputFormat:
    Table "table" "A table for people",
    Json "json" "One JSON document",
    Csv "csv" "CSV with a header",
    Names "names" "One name a line, for xargs",
}

value_enum! { Severity:
    Hint "hint" "All findings",
    Warning "warning" "Warnings and errors",
    Error "error" "Errors only",
}
