//! Standin: a resilient caching-proxy sidecar for Redis and Valkey. ARCHITECTURE.md is the map of this house.

pub mod admin;
pub mod app;
pub mod backend;
pub mod cli;
pub mod client;
pub mod command;
pub mod config;
pub mod control;
pub mod divergence;
pub mod embedded;
pub mod limits;
pub mod policy;
pub mod resp;
pub mod route;
pub mod simulation;
pub mod telemetry;
