//! Commands that the table does not have: each server is asked once what its modules bring, so that their keys are known
//! when they must be entered into a record, and their reads may be sent again.

use std::rc::Rc;

use super::entry::words;
use super::shared::Shared;
use crate::backend::Reply;
use crate::command::{self, LearnedSpec};
use crate::limits::MODULE_COMMANDS_MAX;
use crate::policy::BackendId;

/// Asks, and remembers. A server that does not tell (no permission, no such command) leaves its commands what they were:
/// forwarded, as writes of unknown keys.
pub(super) async fn learn(shared: Rc<Shared>, id: BackendId) {
    let Some(names) = unknown_names(&shared, id).await.filter(|names| !names.is_empty()) else { return };
    let mut request = words(&["COMMAND", "INFO"]);
    request.extend(names);
    let Ok(replies) = shared.ask(id, vec![request], shared.entry_timeout).await else { return };
    let rows: Vec<LearnedSpec> = replies[0].elements().unwrap_or_default().iter().filter_map(row).collect();
    let count = rows.len();
    if rows.into_iter().all(command::learn) {
        tracing::debug!(backend = shared.rules(id).name, count, "commands of modules are known");
    } else {
        tracing::warn!(
            backend = shared.rules(id).name,
            "the servers have more than {MODULE_COMMANDS_MAX} commands of modules; some are treated as writes of unknown keys"
        );
    }
}

/// The server's commands that the table does not have. Servers before 7.0 know no COMMAND LIST and tell all of COMMAND.
async fn unknown_names(shared: &Shared, id: BackendId) -> Option<Vec<Vec<u8>>> {
    for request in [words(&["COMMAND", "LIST"]), words(&["COMMAND"])] {
        let replies = shared.ask(id, vec![request], shared.entry_timeout).await.ok()?;
        if let Some(elements) = replies[0].elements() {
            return Some(foreign(elements));
        }
    }
    None
}

fn foreign(elements: &[Reply]) -> Vec<Vec<u8>> {
    let name = |element: &Reply| element.text().or_else(|| element.elements()?.first()?.text()).map(str::to_owned);
    // Subcommands are listed too, as `container|subcommand`: a request is looked up by its first word.
    let is_foreign = |name: &String| !name.contains('|') && command::lookup(name.as_bytes()).is_none();
    let names = elements.iter().filter_map(name).filter(is_foreign);
    names.take(MODULE_COMMANDS_MAX + 1).map(String::into_bytes).collect()
}

/// One element of COMMAND INFO: name, arity, flags, first key, last key, step, and more that is not needed.
fn row(element: &Reply) -> Option<LearnedSpec> {
    let fields = element.elements()?;
    let number = |at: usize| fields.get(at)?.integer().and_then(|number| i32::try_from(number).ok());
    let flags: Vec<&str> = fields.get(2)?.elements()?.iter().filter_map(Reply::text).collect();
    Some(command::learned(fields.first()?.text()?, &flags, number(3)?, number(4)?, number(5)?, number(1)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::command::{Category, KeyScope};

    fn text(text: &str) -> Reply {
        Reply::Bulk(text.to_owned().into())
    }

    fn info(name: &str, flag: &str, [first, last, step]: [i64; 3]) -> Reply {
        let flags = Reply::Array(vec![Reply::Status(flag.to_owned())]);
        let numbers = [first, last, step].map(Reply::Integer);
        Reply::Array([text(name), Reply::Integer(-2), flags].into_iter().chain(numbers).collect())
    }

    #[test]
    fn only_commands_that_the_table_lacks_are_asked_about() {
        assert_eq!(foreign(&[text("get"), text("X.ADD"), text("config|get"), text("x|y")]), [b"X.ADD"]);
        let whole = [info("get", "readonly", [1, 1, 1]), info("x.add", "write", [1, 1, 1])];
        assert_eq!(foreign(&whole), [b"x.add"]);
    }

    #[test]
    fn what_the_server_tells_is_what_requests_are_judged_by() {
        assert!(command::learn(row(&info("told.get", "readonly", [1, 1, 1])).unwrap()));
        assert!(command::learn(row(&info("told.set", "write", [1, 1, 1])).unwrap()));
        let get = b"*2\r\n$8\r\nTOLD.GET\r\n$1\r\nk\r\n";
        assert_eq!(command::of_request(get).category(get), Category::Read);
        let set = b"*2\r\n$8\r\nTOLD.SET\r\n$1\r\nk\r\n";
        let spec = command::of_request(set);
        let mut keys = Vec::new();
        assert_eq!(command::written_keys(spec, set, &mut |key| keys.push(key.to_vec())), KeyScope::Keys);
        assert_eq!((spec.category(set), keys), (Category::Accumulating, vec![b"k".to_vec()]));
    }

    #[test]
    fn servers_that_do_not_agree_about_a_command_are_both_not_believed() {
        assert!(command::learn(row(&info("torn.get", "readonly", [1, 1, 1])).unwrap()));
        assert!(command::learn(row(&info("torn.get", "write", [1, 1, 1])).unwrap()));
        let request = b"*2\r\n$8\r\nTORN.GET\r\n$1\r\nk\r\n";
        let spec = command::of_request(request);
        assert_eq!(command::written_keys(spec, request, &mut |_| panic!("a key")), KeyScope::Unknown);
    }

    #[test]
    fn an_element_that_is_no_row_is_passed_over() {
        for element in [Reply::Null, text("x"), Reply::Array(vec![text("x"), Reply::Integer(1)])] {
            assert!(row(&element).is_none());
        }
    }
}
