//! Password hashes for the users of tenants.

use argon2::Argon2;
use argon2::password_hash::PasswordHasher as _;
use argon2::password_hash::phc::Salt;
use base64ct::{Base64, Encoding as _};
use pbkdf2::{Algorithm, Params, pbkdf2_hmac_with_params};

/// The iterations of Django 5.2; an application with more rehashes at the next login.
const ITERATIONS: u32 = 1_000_000;

/// The bytes of a SHA-256.
const BYTES: usize = 32;

/// Returns an Argon2id hash in the PHC format, with the parameters that OWASP recommends
/// (19 MiB, 2 passes, 1 lane) and a random salt; `None` without a source of randomness.
pub fn argon2id(password: &str) -> Option<String> {
    let hash = Argon2::default().hash_password(password.as_bytes());
    hash.ok().map(|hash| hash.to_string())
}

/// Returns the hash that Django's `check_password` accepts: `pbkdf2_sha256$iterations$salt$hash`.
pub fn django_pbkdf2(password: &str) -> Option<String> {
    let salt = Salt::generate().to_string();
    let mut hash = [0; BYTES];
    pbkdf2_hmac_with_params(
        password.as_bytes(),
        salt.as_bytes(),
        Algorithm::Pbkdf2Sha256,
        Params::new(ITERATIONS).ok()?,
        &mut hash,
    );
    Some(format!("pbkdf2_sha256${ITERATIONS}${salt}${}", Base64::encode_string(&hash)))
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::PasswordVerifier as _;
    use argon2::password_hash::phc::PasswordHash;

    use super::*;

    #[test]
    fn an_argon2id_hash_is_of_its_password_and_of_no_other() {
        let hash = argon2id("mật khẩu").expect("randomness");
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        let hash = PasswordHash::new(&hash).expect("PHC");
        let check = |password: &str| Argon2::default().verify_password(password.as_bytes(), &hash);
        assert!(check("mật khẩu").is_ok());
        assert!(check("mat khau").is_err());
    }
}
