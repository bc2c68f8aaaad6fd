//! Every shipped scenario over many seeds.
