//! From lines of an assembled text back to the files of `shaders/`.

use super::module::is_word;
use super::{GENERATED, library};

/// Where a line of an assembled text (from 1) comes from: `shaders/NAME.wgsl:LINE`. `None` for generated code.
///
/// A line that occurs several times in its declaration may be confused with another one of these.
pub fn locate(text: &str, line: usize) -> Option<String> {
    let lines: Vec<&str> = text.lines().collect();
    let wanted = *lines.get(line.checked_sub(1)?)?;
    let mark = lines[..line].iter().rposition(|line| line.starts_with("// shaders/") || *line == GENERATED)?;
    let (file, rest) = lines[mark].strip_prefix("// shaders/")?.split_once(".wgsl:")?;
    let mut rest = rest.split(' ');
    let first: usize = rest.next()?.parse().ok()?;
    let arguments: Vec<(&str, &str)> = rest.filter_map(|argument| argument.split_once('=')).collect();
    let source: Vec<&str> = library(file).ok()?.source.lines().collect();
    let at = first + (line - 1 - mark).checked_sub(1)?;
    // The text differs from the file in template arguments and in the variables of unrolled loops.
    let same = |number: usize| {
        source.get(number.wrapping_sub(1)).is_some_and(|line| {
            let line = strip_attributes(line);
            let mut ours =
                tokens(line).map(|word| arguments.iter().find(|(name, _)| *name == word).map_or(word, |a| a.1));
            let mut theirs = tokens(wanted);
            loop {
                match (ours.next(), theirs.next()) {
                    (None, None) => return true,
                    (Some(a), Some(b)) if a == b || is_variable(a) && is_literal(b) => {}
                    _ => return false,
                }
            }
        })
    };
    let found =
        (0..source.len()).flat_map(|by| [at + by, at.wrapping_sub(by)]).find(|&number| number >= first && same(number));
    Some(format!("shaders/{file}.wgsl:{}", found.unwrap_or(first)))
}

/// A compiler's message about an assembled text, with the files and lines for the positions that it shows
/// (`┌─ NAME:LINE:COLUMN`).
pub fn with_locations(text: &str, message: &str) -> String {
    let line = |line: &str| {
        let position = line.split_once("┌─ ")?.1;
        let number = position.rsplit(':').nth(1)?.parse().ok()?;
        locate(text, number)
    };
    let lines = message.lines().map(|shown| match line(shown) {
        Some(location) => format!("{shown} ({location})"),
        None => shown.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn strip_attributes(line: &str) -> &str {
    let line = line.trim_start();
    line.strip_prefix("@unroll ").unwrap_or(line)
}

fn is_variable(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_lowercase())
}

fn is_literal(word: &str) -> bool {
    word.strip_suffix('u').is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
}

/// Words and other characters, without white space.
fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start();
        let length = rest.bytes().take_while(|&b| is_word(b)).count().max(rest.chars().next()?.len_utf8());
        let (token, after) = rest.split_at(length);
        rest = after;
        Some(token)
    })
}
