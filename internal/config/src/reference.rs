/// The commented default configuration.
pub fn reference() -> String {
    String::new()
}
