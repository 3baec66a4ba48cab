//! One file of certificate, key and anchor (PKCS#12), for programs that want that, under a password that stands on no command line.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};

use clap::Args;
use concord_identity::{
    Anchor, CERTIFICATE_FILE, Credentials, KEY_FILE, SERVER_ANCHOR_FILE, certificates_from_pem, load_key_of, read_text,
    write_private,
};
use p12_keystore::{Certificate, KeyStore, KeyStoreEntry, PrivateKey, PrivateKeyChain};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::exit::Failure;
use crate::output::Output;

/// A shorter one is refused: the file is made to be carried about.
const PASSWORD_CHARS_MIN: usize = 8;
/// Whoever finds the file pays this for each guess at its password (PBKDF2 with SHA-256, as OWASP advises).
const ITERATIONS: u32 = 600_000;

/// `--p12` of the commands that make an agency's certificate.
#[derive(Args)]
pub(crate) struct P12Args {
    /// Write certificate, key and anchor into one file (PKCS#12) too, for programs that want that.
    #[arg(long, value_name = "OUT", conflicts_with = "csr")]
    p12: Option<PathBuf>,
    /// The file whose first line is the password of the PKCS#12 file; without it a terminal is asked.
    #[arg(long, value_name = "FILE", requires = "p12")]
    p12_password: Option<PathBuf>,
}

/// A file that is to be written.
pub(crate) struct Wanted<'a> {
    /// Where.
    pub(crate) out: &'a Path,
    password: Zeroizing<String>,
}

impl P12Args {
    /// The file that is wanted, if one is: its password is asked for before anything is done.
    pub(crate) fn wanted(&self, output: Output) -> Result<Option<Wanted<'_>>, Failure> {
        let Some(out) = self.p12.as_deref() else { return Ok(None) };
        Ok(Some(Wanted { out, password: password(self.p12_password.as_deref(), output)? }))
    }
}

impl Wanted<'_> {
    /// Writes what stands in this profile.
    pub(crate) fn write(&self, profile: &Path, name: &str) -> Result<(), Failure> {
        write(profile, name, self.out, &self.password)
    }
}

/// The first line of a file, or what somebody types twice.
fn password(file: Option<&Path>, output: Output) -> Result<Zeroizing<String>, Failure> {
    let password = match file {
        Some(path) => {
            let text = Zeroizing::new(read_text(path)?);
            Zeroizing::new(text.lines().next().unwrap_or_default().to_owned())
        }
        None => {
            let first = ask(output, "Password for the PKCS#12 file:")?;
            if *first != *ask(output, "The same again:")? {
                return Err(Failure::failed("NOT_CONFIRMED", "the two are not the same; nothing was done"));
            }
            first
        }
    };
    if password.chars().count() < PASSWORD_CHARS_MIN {
        let what = format!("the password for the PKCS#12 file has fewer than {PASSWORD_CHARS_MIN} characters");
        return Err(Failure::usage(what).help("choose a longer one, at the terminal or as the first line of the file"));
    }
    Ok(password)
}

/// Asks a terminal that does not show what is typed.
fn ask(output: Output, question: &str) -> Result<Zeroizing<String>, Failure> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        let what = "a password is needed, and there is no terminal to ask";
        return Err(Failure::usage(what).help("add --p12-password FILE"));
    }
    let failed = |error: std::io::Error| Failure::failed("TERMINAL", format!("the password cannot be read: {error}"));
    output.say(question);
    let shown = tcgetattr(&stdin).map_err(|error| failed(error.into()))?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &hidden).map_err(|error| failed(error.into()))?;
    let mut line = Zeroizing::new(String::new());
    let read = stdin.lock().read_line(&mut line);
    tcsetattr(&stdin, OptionalActions::Flush, &shown).map_err(|error| failed(error.into()))?;
    read.map_err(failed)?;
    Ok(Zeroizing::new(line.trim_end_matches(['\r', '\n']).to_owned()))
}

/// Writes what a profile has into one file with mode 0600.
fn write(profile: &Path, name: &str, out: &Path, password: &str) -> Result<(), Failure> {
    let unusable = |what: String| Failure::failed("P12", format!("the PKCS#12 file cannot be made: {what}"));
    let credentials = Credentials::load(&profile.join(CERTIFICATE_FILE), &profile.join(KEY_FILE));
    let credentials = credentials.map_err(|error| unusable(error.to_string()))?;
    let anchor = certificates_from_pem(&read_text(&profile.join(SERVER_ANCHOR_FILE))?).map_err(unusable)?;
    let anchor = anchor.first().ok_or_else(|| unusable("the profile has no anchor".to_owned()))?;
    Anchor::from_der(anchor).map_err(|error| unusable(error.to_string()))?;

    let chain = credentials.chain();
    let leaf = chain.first().ok_or_else(|| unusable("the profile has no certificate".to_owned()))?;
    let key = load_key_of(&profile.join(KEY_FILE), leaf).and_then(|key| key.to_pkcs8_der());
    let key = key.map_err(|error| unusable(error.to_string()))?;
    let key = PrivateKey::from_der(&key).map_err(|error| unusable(error.to_string()))?;
    let chain = chain.iter().chain([anchor]).map(|der| Certificate::from_der(der));
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(|error| unusable(error.to_string()))?;
    let mut store = KeyStore::new();
    store.add_entry(name, KeyStoreEntry::PrivateKeyChain(PrivateKeyChain::new(name.as_bytes(), key, chain)));
    let writer = store.writer(password).encryption_iterations(ITERATIONS).mac_iterations(ITERATIONS);
    let bytes = writer.write().map_err(|error| unusable(error.to_string()))?;
    Ok(write_private(out, &Zeroizing::new(bytes))?)
}
