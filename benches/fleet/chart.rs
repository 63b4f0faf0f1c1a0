//! The chart of a report: a panel of bars for each row, with pricesync in color.

use std::fmt::Write as _;

use crate::args::RowName;
use crate::measure::Measured;
use crate::report::{heading, number_words};

const WIDTH: f64 = 860.0;
const LABELS: f64 = 250.0;
const NUMBERS: f64 = 80.0;
const BAR: f64 = 14.0;
const STEP: f64 = 20.0;
const TITLE: f64 = 30.0;
const GAP: f64 = 18.0;

/// Ratio from which on the smallest bar would be invisible on a linear scale.
const WIDE: f64 = 25.0;

/// Colors for light and dark pages.
const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#1f2328}\
    .t{font-weight:600;font-size:13px}.s{fill:#59636e}.ours{fill:#1f6feb}.other{fill:#afb8c1}\
    @media(prefers-color-scheme:dark){text{fill:#e6edf3}.s{fill:#9198a1}.other{fill:#59636e}}";

/// Returns the chart as SVG. Rows measured in both modes are drawn as durable.
pub(crate) fn draw(rows: &[Measured], below: &str) -> String {
    let mut body = String::new();
    let mut y = 4.0;
    for row in rows.iter().filter(|row| is_drawn(row, rows)) {
        y = panel(&mut body, row, y) + GAP;
    }
    let _ = writeln!(body, r#"<text class="s" x="0" y="{:.0}">{}</text>"#, y + 8.0, escaped(below));
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {:.0}\" role=\"img\">\n\
         <title>pricesync beside the raw limit of the server and beside other tools</title>\n\
         <style>{STYLE}</style>\n{body}</svg>\n",
        y + 16.0
    )
}

fn is_drawn(row: &Measured, rows: &[Measured]) -> bool {
    let has_durable =
        rows.iter().any(|other| other.row == row.row && other.title == row.title && other.durable);
    !matches!(row.row, RowName::Memory | RowName::Drop | RowName::Backup)
        && (row.durable || !has_durable)
}

/// Draws one panel and returns its lower edge.
fn panel(body: &mut String, row: &Measured, top: f64) -> f64 {
    let bars: Vec<(&str, f64)> = row
        .samples
        .iter()
        .filter(|samples| !samples.values.is_empty())
        .map(|samples| (samples.name.as_str(), samples.median()))
        .collect();
    let least = bars.iter().map(|(_, value)| *value).fold(f64::INFINITY, f64::min);
    let most = bars.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    let is_log = most / least > WIDE;
    let space = WIDTH - LABELS - NUMBERS;
    let length = |value: f64| {
        if is_log {
            // The smallest bar stays visible.
            let floor = (least / 2.0).ln();
            space * (value.ln() - floor) / (most.ln() - floor)
        } else {
            space * value / most
        }
    };
    let scale = if is_log { ", logarithmic" } else { "" };
    let _ = writeln!(
        body,
        r#"<text class="t" x="0" y="{:.0}">{}<tspan class="s" font-weight="400">{scale}</tspan></text>"#,
        top + 16.0,
        escaped(&heading(row))
    );
    let mut y = top + TITLE;
    for (name, value) in bars {
        let class = if name.starts_with("pricesync") { "ours" } else { "other" };
        let (end, base) = (length(value), y + 11.0);
        let _ = writeln!(
            body,
            "<text x=\"{:.0}\" y=\"{base:.0}\" text-anchor=\"end\">{}</text>\
             <rect class=\"{class}\" x=\"{LABELS:.0}\" y=\"{y:.0}\" width=\"{end:.1}\" height=\"{BAR:.0}\" rx=\"2\"/>\
             <text x=\"{:.1}\" y=\"{base:.0}\">{}</text>",
            LABELS - 8.0,
            escaped(name),
            LABELS + end + 6.0,
            number_words(value, row.unit)
        );
        y += STEP;
    }
    y
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
