//! Lines in, lines out: a terminal with a prompt, or pipes.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    thread,
};

use anyhow::{Context as _, Result, bail};
use rustyline::{DefaultEditor, ExternalPrinter, error::ReadlineError};
use tokio::sync::mpsc;

/// Lines that may wait to be read.
const LINES_MAX: usize = 64;

/// Where the user reads and writes.
pub(crate) struct Screen {
    printer: Option<Box<dyn ExternalPrinter + Send>>,
    lines: mpsc::Receiver<String>,
    is_terminal: bool,
}

impl Screen {
    pub(crate) fn open() -> Result<Self> {
        let (sender, lines) = mpsc::channel(LINES_MAX);
        let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
        if !is_terminal {
            thread::Builder::new().name("lines".to_owned()).spawn(move || {
                let read = io::stdin().lock().lines().map_while(Result::ok);
                for line in read {
                    if sender.blocking_send(line).is_err() {
                        return;
                    }
                }
            })?;
            return Ok(Self {
                printer: None,
                lines,
                is_terminal,
            });
        }
        let mut editor = DefaultEditor::new().context("the terminal cannot be used")?;
        let printer = editor
            .create_external_printer()
            .context("the terminal cannot be used")?;
        thread::Builder::new().name("prompt".to_owned()).spawn(move || {
            loop {
                match editor.readline("> ") {
                    Ok(line) => {
                        let _ = editor.add_history_entry(&line);
                        if sender.blocking_send(line).is_err() {
                            return;
                        }
                    }
                    Err(ReadlineError::Interrupted | ReadlineError::Eof) => return,
                    Err(error) => {
                        tracing::warn!(%error, "the terminal cannot be read");
                        return;
                    }
                }
            }
        })?;
        Ok(Self {
            printer: Some(Box::new(printer)),
            lines,
            is_terminal,
        })
    }

    /// The next line; none when the user has left.
    pub(crate) async fn line(&mut self) -> Option<String> {
        self.lines.recv().await
    }

    /// Prints a line above the prompt.
    pub(crate) fn say(&mut self, line: &str) {
        // A screen that is gone has nobody to tell it to.
        match &mut self.printer {
            Some(printer) => drop(printer.print(format!("{line}\n"))),
            None => drop(writeln!(io::stdout(), "{line}")),
        }
    }

    /// Prints a line that is not a message.
    pub(crate) fn note(&mut self, line: &str) {
        let line = self.dim(&format!("· {line}"));
        self.say(&line);
    }

    /// Asks a question; the answer is the next line.
    pub(crate) async fn ask(&mut self, question: &str) -> Result<String> {
        self.note(question);
        match self.line().await {
            Some(answer) => Ok(answer.trim().to_owned()),
            None => bail!("nobody answers: {question}"),
        }
    }

    pub(crate) const fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    pub(crate) fn dim(&self, text: &str) -> String {
        self.painted("2", text)
    }

    pub(crate) fn bold(&self, text: &str) -> String {
        self.painted("1;36", text)
    }

    fn painted(&self, code: &str, text: &str) -> String {
        if self.is_terminal {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}
