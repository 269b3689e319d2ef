//! Names of what zones share: who has one may have the thing, and nobody guesses it.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};
use vgpu_api::Token;

pub(super) fn random_token() -> io::Result<Token> {
    let mut token = Token::default();
    let got = getrandom(&mut token.0, GetRandomFlags::empty())?;
    if got == token.0.len() { Ok(token) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
