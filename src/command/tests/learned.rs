use super::request;
use crate::command::{Category, Class, Handling, KeyScope, is_blocking, keys, learned, written_keys};

#[test]
fn a_module_read_keeps_its_keys_and_is_repeated_as_a_read() {
    let spec = learned("JSON.GET", &["readonly", "fast"], 1, 1, 1, -2);
    let frame = request("JSON.GET doc $.a");
    let mut found = Vec::new();
    assert_eq!(keys(&spec, &frame, &mut |key| found.push(key)), KeyScope::Keys);
    assert_eq!(found, [b"doc"]);
    assert_eq!(written_keys(&spec, &frame, &mut |_| panic!("writes")), KeyScope::None);
    assert_eq!((&*spec.name, spec.class), ("json.get", Class::PointRead));
    assert_eq!(spec.category(&frame), Category::Read);
    assert!(spec.arity_ok(2) && !spec.arity_ok(1));
}

#[test]
fn what_is_not_marked_as_a_read_is_a_write_that_is_not_repeated() {
    for flags in [&["write", "denyoom"][..], &[], &["admin"]] {
        let spec = learned("m.set", flags, 1, -1, 1, -2);
        assert!(spec.is_write());
        assert_eq!(spec.category, Category::Accumulating);
        let mut found = 0;
        assert_eq!(written_keys(&spec, &request("m.set a b"), &mut |_| found += 1), KeyScope::Keys);
        assert_eq!(found, 2);
    }
}

#[test]
fn keys_that_positions_cannot_tell_are_unknown() {
    for (flags, first, last, step) in [(&["write"][..], 0, 0, 0), (&["write", "movablekeys"], 1, 1, 1), (&[], 2, 1, 1)]
    {
        let spec = learned("m.do", flags, first, last, step, -1);
        assert_eq!(written_keys(&spec, &request("m.do a"), &mut |_| panic!("a key")), KeyScope::Unknown);
    }
}

#[test]
fn a_module_that_blocks_gets_a_connection_of_its_own() {
    let spec = learned("m.wait", &["readonly", "blocking"], 1, 1, 1, 3);
    assert_eq!((spec.handling, spec.category), (Handling::Blocking, Category::Never));
    assert!(is_blocking(&spec, &request("m.wait k 5")));
}
