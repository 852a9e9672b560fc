//! Who talks, and in which conversation.

use std::{env, fs, path::PathBuf, time::Duration};

use antiphon_client::{Account, AccountError, Tokens};
use anyhow::{Context as _, Result, bail};
use tokio::time::sleep;

use super::{ChatArgs, screen::Screen};

/// How often it is looked whether somebody has registered by now.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// A log-in.
pub(crate) struct Session {
    pub(crate) account: Account,
    pub(crate) tokens: Tokens,
    pub(crate) device_id: String,
    pub(crate) certificate_sha256: Option<String>,
}

/// The conversation that was picked.
pub(crate) struct Picked {
    pub(crate) id: String,
    pub(crate) title: String,
}

/// Logs in; a name that is free is registered.
pub(crate) async fn log_in(args: &ChatArgs, screen: &mut Screen) -> Result<Session> {
    let account = Account::pinned(&args.server, args.certificate_sha256.as_deref());
    let username = match &args.username {
        Some(username) => username.clone(),
        None => screen.ask("Your name?").await?,
    };
    let password = match &args.password {
        Some(password) => password.clone(),
        None if screen.is_terminal() => {
            rpassword::prompt_password(format!("Password of {username}: ")).context("the password cannot be read")?
        }
        None => screen.ask("Password?").await?,
    };
    let device_id = match &args.device {
        Some(device) => device.clone(),
        None => kept_device_id(&username),
    };
    let tokens = match account.log_in(&username, &password, &device_id).await {
        Ok(tokens) => tokens,
        Err(error) if error.code() == Some("UNAUTHENTICATED") => {
            register(&account, &username, &password, screen).await?;
            account
                .log_in(&username, &password, &device_id)
                .await
                .context("log-in")?
        }
        Err(error) => return Err(error).with_context(|| format!("log-in at {}", args.server)),
    };
    Ok(Session {
        account,
        tokens,
        device_id,
        certificate_sha256: args.certificate_sha256.clone(),
    })
}

async fn register(account: &Account, username: &str, password: &str, screen: &mut Screen) -> Result<()> {
    if screen.is_terminal() {
        let answer = screen
            .ask(&format!("{username} cannot log in like this. Register the name? [y/N]"))
            .await?;
        if !answer.eq_ignore_ascii_case("y") {
            bail!("the name or the password is wrong");
        }
    }
    match account.register(username, password).await {
        Ok(_) => {
            screen.note(&format!("{username} is registered"));
            Ok(())
        }
        Err(error) if error.code() == Some("ALREADY_EXISTS") => bail!("the password of {username} is wrong"),
        Err(error) => Err(error).context("registration"),
    }
}

impl Session {
    /// The conversation to talk in; none when the user picks nothing.
    pub(crate) async fn pick(&self, args: &ChatArgs, screen: &mut Screen) -> Result<Option<Picked>> {
        if let Some(title) = &args.group {
            return self.found(title, &args.members, screen).await.map(Some);
        }
        if let Some(name) = &args.with {
            return self.direct(name, screen).await.map(Some);
        }
        let conversations = self.account.conversations(&self.tokens.access_token).await?;
        let mut picks = Vec::new();
        for view in conversations {
            let title = match &view.peer_id {
                Some(peer) if !peer.is_empty() => self.account.username(&self.tokens.access_token, peer).await?,
                Some(_) | None if view.title.is_empty() => view.conversation_id.clone(),
                Some(_) | None => view.title.clone(),
            };
            let unread = if view.unread > 0 {
                format!("  ({} unread)", view.unread)
            } else {
                String::new()
            };
            screen.say(&format!("{:>3}  {title}{unread}", picks.len() + 1));
            picks.push(Picked {
                id: view.conversation_id,
                title,
            });
        }
        let answer = screen
            .ask("Number of a conversation, or the name of somebody to talk to?")
            .await?;
        if answer.is_empty() {
            return Ok(None);
        }
        match answer.parse::<usize>() {
            Ok(number) if (1..=picks.len()).contains(&number) => Ok(Some(picks.swap_remove(number - 1))),
            Ok(number) => bail!("{number} is not between 1 and {}", picks.len()),
            Err(_) => self.direct(&answer, screen).await.map(Some),
        }
    }

    async fn direct(&self, name: &str, screen: &mut Screen) -> Result<Picked> {
        let peer = self.find(name, screen).await?;
        let id = self.account.open_direct(&self.tokens.access_token, &peer).await?;
        Ok(Picked {
            id,
            title: name.to_owned(),
        })
    }

    async fn found(&self, title: &str, members: &[String], screen: &mut Screen) -> Result<Picked> {
        let mut ids = Vec::new();
        for name in members {
            ids.push(self.find(name, screen).await?);
        }
        let id = self
            .account
            .create_group(&self.tokens.access_token, title, &ids)
            .await?;
        Ok(Picked {
            id,
            title: title.to_owned(),
        })
    }

    /// The id of `name`; waits for somebody who has not registered yet.
    async fn find(&self, name: &str, screen: &mut Screen) -> Result<String> {
        let mut has_said = false;
        loop {
            match self.account.user_by_name(&self.tokens.access_token, name).await {
                Ok(id) => return Ok(id),
                Err(AccountError::Refused { code, .. }) if code == "NOT_FOUND" => {
                    if !has_said {
                        screen.note(&format!("nobody is called {name} yet; waiting for them to register"));
                        has_said = true;
                    }
                    sleep(LOOK_AGAIN).await;
                }
                Err(error) => return Err(error).with_context(|| format!("looking for {name}")),
            }
        }
    }
}

/// The device id of this installation and name, made at first use. One that cannot be kept lasts as long as the process.
fn kept_device_id(username: &str) -> String {
    let folder = env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".config")));
    let file = folder.map(|folder| folder.join("antiphon").join(format!("device-{username}")));
    let kept = file.as_ref().and_then(|file| fs::read_to_string(file).ok());
    if let Some(kept) = kept.map(|kept| kept.trim().to_owned()).filter(|kept| !kept.is_empty()) {
        return kept;
    }
    let made = format!("chat-{:016x}", rand::random::<u64>());
    if let Some(file) = file
        && let Some(folder) = file.parent()
        && fs::create_dir_all(folder).is_ok()
    {
        let _ = fs::write(&file, &made);
    }
    made
}
