//! `concord demo`: everything once, for real, on this machine: a hub and four nodes as processes of their own, used
//! through the same commands that a person uses.

mod cast;
mod receipts;
mod samples;
mod stage;
mod story;
mod tell;

use std::path::PathBuf;

use clap::Args;
use tempfile::TempDir;

use crate::exit::Failure;
use crate::hint::Line;
use crate::output::Output;
use crate::signals::Stop;
use cast::{DISASTERS, ITEMS, STATES, state};
use stage::Stage;
use story::{Places, Told};
use tell::{Event, Teller};

#[derive(Args)]
#[command(after_help = "Example:\n  concord demo --once")]
pub(crate) struct DemoArgs {
    /// End after the story; exit 0 only if everybody received what was agreed and nothing else.
    #[arg(long)]
    once: bool,
    /// Keep everything in this folder, absent or empty; else it is a temporary one, removed at the end.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// The demo's folder: kept, or removed with everything in it when it is dropped.
enum Place {
    Kept(PathBuf),
    Temporary(TempDir),
}

pub(crate) async fn run(args: DemoArgs, output: Output) -> Result<(), Failure> {
    let mut stop = Stop::listen()?;
    let place = Place::make(args.dir)?;
    let places = Places { root: place.path() };
    let teller = Teller::new(output);
    let (mut stage, mut lines) = Stage::new(&places.root)?;

    // None: Ctrl-C came first.
    let told = tokio::select! {
        told = story::play(&mut stage, &mut lines, &places, &teller) => Some(told),
        () = stop.wait() => None,
    };
    let result = match told {
        Some(Ok(told)) if !args.once => match invite(&places, &told, &teller) {
            Ok(()) => {
                stop.wait().await;
                Ok(())
            }
            failed => failed,
        },
        Some(told) => told.map(drop),
        None if args.once => Err(Failure::failed("INTERRUPTED", "the story was interrupted before its end")),
        None => Ok(()),
    };
    stage.end().await;
    let kept = place.leave()?;
    let told = teller.tell(&Event::Stopped { folder: &places.root, kept });
    result.and(told)
}

impl Place {
    fn make(dir: Option<PathBuf>) -> Result<Self, Failure> {
        let Some(dir) = dir else {
            let made = tempfile::Builder::new().prefix("concord-demo-").tempdir();
            return made.map(Self::Temporary).map_err(|error| {
                Failure::failed("FOLDER_UNUSABLE", format!("no temporary folder can be made: {error}"))
            });
        };
        let unusable = |why: String| Failure::usage(format!("{} cannot be used: {why}", dir.display()));
        std::fs::create_dir_all(&dir).map_err(|error| unusable(error.to_string()))?;
        let dir = dir.canonicalize().map_err(|error| unusable(error.to_string()))?;
        let mut entries = std::fs::read_dir(&dir).map_err(|error| unusable(error.to_string()))?;
        if entries.next().is_some() {
            return Err(unusable("it is not empty".to_owned()).help("give --dir an absent or empty folder"));
        }
        Ok(Self::Kept(dir))
    }

    fn path(&self) -> PathBuf {
        match self {
            Self::Kept(path) => path.clone(),
            Self::Temporary(folder) => folder.path().to_owned(),
        }
    }

    /// Whether the folder is still there afterwards.
    fn leave(self) -> Result<bool, Failure> {
        match self {
            Self::Kept(_) => Ok(true),
            Self::Temporary(folder) => {
                let path = folder.path().display().to_string();
                folder.close().map(|()| false).map_err(|error| {
                    Failure::failed("FOLDER_UNUSABLE", format!("the folder {path} could not be removed: {error}"))
                })
            }
        }
    }
}

/// Commands for a person who wants to go on: each works as it stands, in this order and in any other.
fn invite(places: &Places, told: &Told, teller: &Teller) -> Result<(), Failure> {
    let [sender, .., recipient] = &STATES;
    let [.., bulletin] = &ITEMS;
    let (sender_profile, recipient_profile) = (places.agency(sender), places.agency(recipient));
    let first = told.sent.first();
    teller.heading("It all runs on. Try it in another terminal")?;
    let submit = Line::new("submit").path(&places.sample(bulletin)).words("--profile").path(&sender_profile);
    teller.paste(
        &format!("send an exchange as {}'s agency {}", sender.code, sender.agency),
        &submit
            .words("--agreement")
            .text(DISASTERS.id)
            .words("--measure")
            .text(bulletin.measure)
            .words("--wait delivered"),
    )?;
    teller.paste(
        &format!("receive it as {}'s agency {}", recipient.code, recipient.agency),
        &Line::new("receive --profile")
            .path(&recipient_profile)
            .words("--out")
            .path(&places.received().join(recipient.code)),
    )?;
    if let Some((sent, sender)) = first.and_then(|sent| Some((sent, state(sent.item.from)?))) {
        let short = sent.exchange_id.get(..12).unwrap_or(&sent.exchange_id);
        teller.paste(
            &format!("see how far the exchange {short} came"),
            &Line::new("track").words(short).words("--profile").path(&places.agency(sender)),
        )?;
    }
    teller.paste(
        "see the agreements of a node",
        &Line::new("agreement list --profile").path(&places.officer(sender.code)),
    )?;
    let operator = |folder: PathBuf| Line::new("status --profile").path(&folder.join("operator"));
    teller.paste("see how a node is", &operator(places.node(sender.code)))?;
    teller.paste("see how the hub is", &operator(places.hub()))?;
    teller.paste("check everything that the hub keeps", &Line::new("verify").path(&places.hub()))?;
    teller.paste("read it, without the contents", &Line::new("journal show").path(&places.hub()))?;
    teller.text("\nCtrl-C stops the hub and the nodes.")
}
