//! `domains` and `resolve --explain`.

use crate::support::pricesync::{Given, Ran};
use crate::support::sessions::Holder;

/// Two tenants; `a` answers to two hosts.
fn with_hosts() -> Given {
    let given = Given::tenants(&["a", "b"]);
    given
        .run(&["domains", "add", "-t", "a", "a.example.com", "www.a.example.com"])
        .exits(0)
        .prints("✓ Domain added: a.example.com (tenant=a)");
    given
}

fn stored(given: &Given) -> Vec<String> {
    given.column(
        "SELECT t.slug || ' ' || d.domain || CASE WHEN is_primary THEN ' *' ELSE '' END \
         FROM tenants_domain d JOIN tenants_tenant t ON t.id = d.tenant_id ORDER BY d.id",
    )
}

#[test]
fn a_tenant_has_exactly_one_primary_host_whatever_is_done() {
    let given = with_hosts();
    assert_eq!(stored(&given), ["a a.example.com *", "a www.a.example.com"]);
    given
        .run(&["domains", "primary", "-t", "a", "WWW.a.example.com:443"])
        .exits(0)
        .prints("✓ Primary domain: www.a.example.com (tenant=a)");
    assert_eq!(stored(&given), ["a a.example.com", "a www.a.example.com *"]);
    given.run(&["domains", "add", "-t", "www.a.example.com", "--primary", "a.vn", "b.vn"]).exits(0);
    assert_eq!(stored(&given), ["a a.example.com", "a www.a.example.com", "a a.vn *", "a b.vn"]);
    given
        .run(&["domains", "remove", "-t", "a", "a.vn", "b.vn"])
        .exits(0)
        .prints("✓ Primary domain: a.example.com (tenant=a)");
    assert_eq!(stored(&given), ["a a.example.com *", "a www.a.example.com"]);
    // What it has already does not fail, and may become the primary one.
    given
        .run(&["domains", "add", "-t", "a", "--primary", "www.a.example.com"])
        .exits(0)
        .says("tenant 'a' already has 'www.a.example.com'");
    assert_eq!(stored(&given), ["a a.example.com", "a www.a.example.com *"]);
}

#[test]
fn the_last_host_goes_only_by_force_and_all_go_or_none() {
    let given = with_hosts();
    let both = ["domains", "remove", "-t", "a", "a.example.com", "www.a.example.com"];
    given
        .run(&both)
        .exits(7)
        .says("'www.a.example.com' is the last host of tenant 'a'")
        .says("--force");
    given
        .run(&["domains", "remove", "-t", "a", "a.example.com", "unknown.example.com"])
        .exits(4)
        .says("tenant 'a' has no host 'unknown.example.com'");
    assert_eq!(stored(&given).len(), 2);
    given.run(&[&both[..], &["--force"]].concat()).exits(0);
    assert!(stored(&given).is_empty());
}

#[test]
fn a_host_of_another_tenant_is_refused_however_it_is_written() {
    let given = with_hosts();
    given.run(&["domains", "add", "-t", "b", "Công-Ty.vn"]).exits(0);
    // Another program wrote these, in a way that pricesync does not.
    given.database.execute(
        "INSERT INTO tenants_domain (domain, is_primary, tenant_id) \
         SELECT d, false, id FROM tenants_tenant, (VALUES ('SHOP.example.com'), ('đồ.vn')) v (d) WHERE slug = 'b'",
    );
    for taken in ["xn--cng-ty-ixa.vn", "CÔNG-TY.VN.", "shop.EXAMPLE.com:80", "ĐỒ.vn"] {
        given
            .run(&["domains", "add", "-t", "a", "new.example.com", taken])
            .exits(7)
            .says("is taken by tenant 'b'");
        given
            .run(&["create-tenant", "--name=C", "--slug=c", "--domain", taken])
            .exits(7)
            .says("is taken by tenant 'b'");
    }
    assert!(!stored(&given).contains(&"a new.example.com".to_owned()));
    for bad in ["", "a b", "a/b", "x'y", "a..b", "xn--ls8h0"] {
        given.run(&["domains", "add", "-t", "a", bad]).exits(7);
    }
    given.run(&["domains", "add", "-t", "zzz", "x.vn"]).exits(4);
    // They can be found and taken away.
    given.run(&["domains", "remove", "-t", "đồ.vn", "đồ.vn", "shop.example.com"]).exits(0);
}

#[test]
fn two_at_once_do_not_both_get_a_host() {
    let given = with_hosts();
    let adds: Vec<_> = ["a", "b", "a", "b"]
        .map(|slug| {
            given.spawn(&[
                "domains",
                "add",
                "-t",
                slug,
                "--primary",
                "one.example.com",
                "two.example.com",
            ])
        })
        .into();
    let mut codes: Vec<_> = adds.into_iter().map(|run| run.wait().code()).collect();
    codes.sort();
    assert_eq!(codes, [Some(0), Some(0), Some(7), Some(7)]);
    assert_eq!(
        given.value("SELECT count(*) || ' ' || count(DISTINCT tenant_id) FROM tenants_domain WHERE domain IN ('one.example.com', 'two.example.com')"),
        "2 1"
    );
    assert_eq!(
        given.value("SELECT max(n) FROM (SELECT count(*) n FROM tenants_domain WHERE is_primary GROUP BY tenant_id) x"),
        "1"
    );
}

#[test]
fn a_locked_domain_table_is_waited_for_up_to_the_timeout() {
    let given = with_hosts();
    let holder = Holder::of(&given, "LOCK TABLE tenants_domain IN ROW EXCLUSIVE MODE");
    let output = given
        .command(&["domains", "primary", "-t", "a", "www.a.example.com"])
        .env("PRICESYNC_LOCK_TIMEOUT", "200ms")
        .output()
        .unwrap();
    Ran::from(&["domains", "primary"], output).exits(6).says("lock timeout");
    holder.let_go(&given);
}

#[test]
fn listings_show_hosts_as_stored_and_as_people_write_them() {
    let given = with_hosts();
    given.run(&["domains", "add", "-t", "b", "công-ty.vn"]).exits(0);
    let ran = given.run(&["domains", "list", "-o", "csv"]);
    assert_eq!(
        ran.stdout(),
        "tenant,domain,unicode,primary\n\
         a,a.example.com,,true\n\
         a,www.a.example.com,,false\n\
         b,xn--cng-ty-ixa.vn,công-ty.vn,true\n"
    );
    let ran = given.run(&["domains", "list", "-t", "công-ty.vn", "-o", "names"]);
    assert_eq!(ran.stdout(), "xn--cng-ty-ixa.vn\n");
    ran.exits(0);
}

#[test]
fn each_step_from_a_host_to_its_schema_is_shown() {
    let given = with_hosts();
    given.run(&["domains", "add", "-t", "b", "công-ty.vn"]).exits(0);
    let ran = given.run(&["resolve", "--explain", "CÔNG-TY.vn.:8443", "-o", "csv"]);
    assert_eq!(
        ran.stdout(),
        "step,gives\n\
         host,CÔNG-TY.vn.:8443\n\
         without port,CÔNG-TY.vn.\n\
         without final dot,CÔNG-TY.vn\n\
         lower case,công-ty.vn\n\
         ASCII (IDNA),xn--cng-ty-ixa.vn\n\
         lookup,found\n\
         tenant,b\n\
         schema,tenant_b\n"
    );
    ran.exits(0);
    given.run(&["resolve", "--explain", "unknown.vn"]).exits(4).prints("not found");
    given.run(&["resolve", "xn--cng-ty-ixa.VN"]).exits(0).prints("tenant_b");
}

#[test]
fn where_no_column_keeps_the_primary_host_none_is_made_so() {
    let given = with_hosts();
    given.file("pricesync.toml", "[catalog]\ndomain_primary_column = \"\"\n");
    let before = stored(&given);
    for args in [
        &["primary", "-t", "a", "www.a.example.com"][..],
        &["add", "-t", "a", "--primary", "c.example.com"],
    ] {
        given
            .run(&[&["domains"], args].concat())
            .exits(2)
            .says("catalog.domain_primary_column")
            .prints_nothing();
    }
    assert_eq!(stored(&given), before);
}
