//! What a person sees while a run is under way.

use crate::support::pricesync::Given;
use crate::support::pty::OnTerminal;
use crate::support::sessions::Gate;

#[test]
fn a_terminal_shows_one_total_bar_and_at_most_eight_lines() {
    let slugs: Vec<String> = (10..22).map(|number| format!("t{number}")).collect();
    let slugs: Vec<&str> = slugs.iter().map(String::as_str).collect();
    let given = Given::tenants(&slugs);
    // All wait at the first gate, the last two at the second one, too.
    given.tenant_file(
        "V1__slow.sql",
        "CREATE TABLE slow (id int);\n\
         SELECT public.gate(1);\n\
         SELECT CASE WHEN current_schema() >= 'tenant_t20' THEN public.gate(2) END;\n",
    );
    let (first, second) = (Gate::close(&given, 1), Gate::close(&given, 2));
    let mut terminal = OnTerminal::start(&given, &["migrate-schemas", "--jobs", "10"]);
    terminal.shows("eight of ten at work, and how many more", |screen| {
        // Lines as wide as the screen have no line break in its text.
        let running = screen.matches("  tenant_t").count();
        assert!(running <= 8, "{screen}");
        running == 8 && screen.contains("/12") && screen.contains("… 2 more")
    });
    terminal.shows("what they are at", |screen| screen.contains("V1__slow"));
    first.open(&given);
    terminal.shows("the total bar moves on", |screen| screen.contains("migrating  10/12"));
    second.open(&given);
    let (code, screen) = terminal.ends();
    assert_eq!(code, 0, "{screen}");
    let summaries = screen.matches("13 schemas, 12 migrated, 1 up to date, 0 failed").count();
    assert_eq!(summaries, 1, "{screen}");
    assert!(!screen.contains("migrating"), "the bar is gone at the end: {screen}");
}

#[test]
fn a_failure_stays_on_the_screen_above_the_bar() {
    let given = Given::tenants(&["acme", "globex"]);
    given.tenant_file("V1__a.sql", "CREATE TABLE a (id int); SELECT pg_sleep(0.3);");
    given.database.execute("CREATE TABLE tenant_globex.a (id int)");
    let terminal = OnTerminal::start(&given, &["migrate-schemas", "--on-failure", "continue"]);
    let (code, screen) = terminal.ends();
    assert_eq!(code, 10, "{screen}");
    assert!(screen.contains("relation \"a\" already exists (42P07)"), "{screen}");
    assert!(screen.contains("3 schemas, 1 migrated, 1 up to date, 1 failed"), "{screen}");
}
