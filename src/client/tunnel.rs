//! A client that became a replica (SYNC, PSYNC): its connection is joined to one of its own to the backend, byte by byte.

use std::rc::Rc;

use tokio::io::{AsyncWriteExt as _, copy_bidirectional};

use super::context::Context;
use crate::backend::{self, Depth, Io, Lane};
use crate::policy::BackendId;

pub(super) async fn run(context: &Rc<Context>, mut client: Io, request: &[u8], lane: Lane, backend: BackendId) {
    let login = context.login(backend, lane.user);
    let server = backend::connect(context.group.backend(backend), lane, &login, Depth::Brief).await;
    let server = server.map(|ready| ready.conversation.into_io());
    match server {
        Ok(Some(mut server)) => {
            if server.write_all(request).await.is_ok() {
                let _ = copy_bidirectional(&mut client, &mut server).await;
            }
        }
        Ok(None) => {}
        Err(error) => {
            let _ = client.write_all(format!("-NOBACKEND {error}\r\n").as_bytes()).await;
        }
    }
}
