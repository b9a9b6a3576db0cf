fn main() { print!("{}", replicator_config::reference()); }
