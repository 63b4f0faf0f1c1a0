//! Draws `docs/run.svg`: a fleet in the middle of its migration, and the same terminal at the end.
//!
//! Not a test of anything; `make picture` runs it.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::num::NonZero;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use portable_pty::{CommandBuilder, PtySize, native_pty_system};
use vt100::{Color, Parser, Screen};

const COLUMNS: u16 = 100;
const ROWS: u16 = 26;
const TENANTS: usize = 300;

/// Size of a character cell and of the border, in the picture's units.
const CELL: (f64, f64) = (8.4, 19.0);
const BORDER: f64 = 16.0;

#[test]
#[ignore = "draws a picture instead of testing"]
fn draw() {
    let dir = tempfile::tempdir().unwrap();
    // The server's user shall reach it when root draws.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let pricesync = Path::new(env!("CARGO_BIN_EXE_pricesync"));
    let init = Command::new(pricesync).args(["init", "--example"]).arg(dir.path()).output();
    assert!(init.unwrap().status.success());
    let script = format!(
        "show() {{ printf '\\033[1m$ %s\\033[0m\\n' \"$*\" >&2; \"$@\"; }}
         show pricesync demo --tenants {TENANTS}"
    );
    let shots = Shots::take(dir.path(), pricesync.parent().unwrap(), &script);
    Command::new(pricesync)
        .args(["server", "destroy", "--force"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    let picture = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/run.svg");
    fs::write(picture, svg(&[&shots.middle, &shots.end])).unwrap();
}

/// What the terminal showed.
struct Shots {
    middle: Screen,
    end: Screen,
}

impl Shots {
    /// Runs a script on a terminal of its own.
    fn take(folder: &Path, programs: &Path, script: &str) -> Self {
        let size = PtySize { rows: ROWS, cols: COLUMNS, ..PtySize::default() };
        let terminal = native_pty_system().openpty(size).unwrap();
        let mut command = CommandBuilder::new("sh");
        command.args(["-c", script]);
        command.cwd(folder);
        command.env_clear();
        let path = env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", programs.display()));
        command.env("HOME", folder);
        command.env("TERM", "xterm-256color");
        command.env("LC_ALL", "C.UTF-8");
        let mut child = terminal.slave.spawn_command(command).unwrap();
        drop(terminal.slave);
        let mut reader = terminal.master.try_clone_reader().unwrap();
        let cells = |number| NonZero::new(number).unwrap();
        let mut parser = Parser::new(cells(ROWS), cells(COLUMNS), 0);
        let mut middle: Option<(usize, Screen)> = None;
        let mut bytes = [0; 16 * 1024];
        while let Ok(count @ 1..) = reader.read(&mut bytes) {
            // Piece by piece, so that no frame is drawn over before it is seen.
            for piece in bytes[..count].split_inclusive(|&byte| byte == b'\n') {
                parser.process(piece);
                let screen = parser.screen();
                if let Some(done) = done(screen) {
                    let off = done.abs_diff(TENANTS * 3 / 5);
                    if middle.as_ref().is_none_or(|(best, _)| off <= *best) {
                        middle = Some((off, screen.clone()));
                    }
                }
            }
        }
        assert!(child.wait().unwrap().success());
        let end = parser.screen().clone();
        let Some((_, middle)) = middle else {
            panic!("no bars were seen; at the end:\n{}", end.contents());
        };
        Self { middle, end }
    }
}

/// Returns how many schemas the bar says are done, once all lines below it are drawn.
fn done(screen: &Screen) -> Option<usize> {
    let mut rows = rows(screen).into_iter().skip_while(|row| !row.starts_with("migrating"));
    let bar = rows.next()?;
    if rows.take_while(|row| row.starts_with("  tenant_")).count() < 3 {
        return None;
    }
    let (before, _) = bar.split_once('/')?;
    before.split_whitespace().last()?.parse().ok()
}

/// Returns the rows down to the last one that is not blank.
fn rows(screen: &Screen) -> Vec<String> {
    let mut rows: Vec<String> = screen.rows(0, COLUMNS).collect();
    while rows.last().is_some_and(|row| row.trim().is_empty()) {
        rows.pop();
    }
    rows
}

/// Draws screens below each other.
fn svg(screens: &[&Screen]) -> String {
    let mut texts = String::new();
    let mut y = BORDER;
    for (index, screen) in screens.iter().enumerate() {
        if index > 0 {
            y += CELL.1;
            let right = BORDER + f64::from(COLUMNS) * CELL.0;
            let line = y - CELL.1 / 2.0;
            let _ = writeln!(
                texts,
                r##"<path d="M{BORDER} {line:.1}H{right:.1}" stroke="#3b4048" stroke-dasharray="4 6"/>"##
            );
        }
        for row in 0..u16::try_from(rows(screen).len()).unwrap() {
            y += CELL.1;
            for span in spans(screen, row) {
                span.write(&mut texts, y - CELL.1 * 0.25);
            }
        }
    }
    let width = f64::from(COLUMNS) * CELL.0 + 2.0 * BORDER;
    let height = y + BORDER;
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0} {height:.0}" width="{width:.0}" height="{height:.0}" font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="14">
<title>pricesync in a terminal: bars in the middle of a run, then the summary and the status</title>
<rect width="100%" height="100%" rx="8" fill="#16191f"/>
{texts}</svg>
"##
    )
}

/// A stretch of one row in one style.
struct Span {
    column: u16,
    text: String,
    color: Color,
    bold: bool,
    dim: bool,
}

impl Span {
    fn write(&self, out: &mut String, y: f64) {
        let text = self.text.trim_end();
        if text.is_empty() {
            return;
        }
        let begin = text.len() - text.trim_start().len();
        let x = BORDER + (f64::from(self.column) + cells(&text[..begin])) * CELL.0;
        let text = text.trim_start();
        let length = cells(text) * CELL.0;
        let fill = fill(self.color, self.dim);
        let weight = if self.bold { r#" font-weight="bold""# } else { "" };
        let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        // The length is given, so that columns line up in whatever font the reader has.
        let _ = writeln!(
            out,
            r#"<text x="{x:.1}" y="{y:.1}" textLength="{length:.1}" fill="{fill}"{weight} xml:space="preserve">{escaped}</text>"#
        );
    }
}

fn cells(text: &str) -> f64 {
    f64::from(u32::try_from(text.chars().count()).unwrap())
}

fn spans(screen: &Screen, row: u16) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for column in 0..COLUMNS {
        let Some(cell) = screen.cell(row, column) else {
            continue;
        };
        let text = match cell.contents() {
            "" => " ",
            text => text,
        };
        let style = (cell.fgcolor(), cell.bold(), cell.dim());
        match spans.last_mut() {
            Some(last) if (last.color, last.bold, last.dim) == style => last.text.push_str(text),
            _ => spans.push(Span {
                column,
                text: text.to_owned(),
                color: style.0,
                bold: style.1,
                dim: style.2,
            }),
        }
    }
    spans
}

fn fill(color: Color, dim: bool) -> String {
    match color {
        Color::Idx(1 | 9) => "#f47067".to_owned(),
        Color::Idx(2 | 10) => "#6bc46d".to_owned(),
        Color::Idx(3 | 11) => "#daaa3f".to_owned(),
        Color::Idx(4 | 12) => "#6cb6ff".to_owned(),
        Color::Idx(5 | 13) => "#dcbdfb".to_owned(),
        Color::Idx(6 | 14) => "#56d4dd".to_owned(),
        Color::Idx(8) => "#768390".to_owned(),
        Color::Rgb(red, green, blue) => format!("#{red:02x}{green:02x}{blue:02x}"),
        _ if dim => "#8b949e".to_owned(),
        _ => "#d7dde5".to_owned(),
    }
}
