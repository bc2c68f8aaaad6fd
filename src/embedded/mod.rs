//! (placeholder)
#[derive(Clone)]
pub struct Store;
pub async fn serve_connection(_store: Store, _io: tokio::io::DuplexStream) {}
