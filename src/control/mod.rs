//! Decides nothing itself: feeds the policy with events and carries out its actions. What operators say comes by `api`.

pub mod api;
