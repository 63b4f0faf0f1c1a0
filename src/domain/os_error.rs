//! Messages of the operating system.

/// Returns a message without the number that Rust appends: ` (os error 2)` helps no user.
pub fn without_number(message: &str) -> &str {
    match message.rsplit_once(" (os error ") {
        Some((text, number)) if number.ends_with(')') => text,
        _ => message,
    }
}
