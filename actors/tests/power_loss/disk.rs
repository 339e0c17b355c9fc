//! What a power cut leaves of a recording.
//!
//! A change of a file is durable once an `fsync` or `fdatasync` of that file began after it and ended before the cut. A
//! change of a directory (a new name, a rename, a removal) is durable once the directory was synced likewise. Of all
//! other changes any subset survives, and of a surviving write any subset of its 512-byte sectors: that is more than
//! real disks and file systems do to us, with one exception.
//!
//! The exception: a rename is not lost if a later change of content survives. sled renames its snapshot into place and
//! then zeroes free segments without syncing the directory between; nothing outside of sled can put a sync there. File
//! systems with one journal (ext4, xfs) keep that order. On one without (btrfs) a power cut during `open` can lose data.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::trace::{Call, Kind};
use crate::workload::Dice;

const SECTOR_BYTES: usize = 512;

/// A recording, resolved from paths and descriptors to files.
#[derive(Debug, Default)]
pub struct Recording {
    changes: Vec<Change>,
    syncs: Vec<Sync>,
    /// Spans and texts of the writes to the file of acknowledgements.
    pub notes: Vec<Note>,
    /// Number of the last line of the trace.
    pub end: usize,
}

#[derive(Debug)]
pub struct Note {
    pub end: usize,
    pub text: String,
}

#[derive(Debug)]
struct Change {
    start: usize,
    /// First line at which a sync that had begun after this change was done.
    durable: Option<usize>,
    end: usize,
    object: Object,
    effect: Effect,
}

#[derive(Debug)]
struct Sync {
    start: usize,
    end: usize,
    object: Object,
}

/// What a sync covers: the content of a file, whatever its name is by then, or the names in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Object {
    File(usize),
    Directory(PathBuf),
}

#[derive(Debug)]
enum Effect {
    Write { offset: usize, data: Vec<u8> },
    SetLength(usize),
    Name { path: PathBuf, file: Option<usize> },
    Rename { from: PathBuf, to: PathBuf, file: usize },
    Unlink { path: PathBuf },
}

/// How much of what was not synced a cut spares.
#[derive(Debug, Clone, Copy)]
pub struct Mercy {
    /// Of a hundred unsynced changes, so many survive.
    pub survivors: u64,
    /// Of a hundred surviving writes, so many are torn.
    pub torn: u64,
}

impl Recording {
    /// Resolves the calls on files below `store`, and those on the file `notes`.
    pub fn new(calls: Vec<Call>, store: &Path, notes: &Path) -> Self {
        let mut files = Files::default();
        let mut recording = Self::default();
        for call in calls {
            recording.end = recording.end.max(call.end);
            if let Kind::Write { path, data, .. } = &call.kind
                && path == notes
            {
                let text = String::from_utf8(data.clone()).expect("notes are text");
                recording.notes.push(Note { end: call.end, text });
            }
            recording.resolve(&mut files, call, store);
        }
        recording.find_durable();
        recording
    }

    fn resolve(&mut self, files: &mut Files, call: Call, store: &Path) {
        let ours = |path: &Path| path.starts_with(store);
        let Call { start, end, kind } = call;
        let mut push = |object, effect| self.changes.push(Change { start, end, durable: None, object, effect });
        match kind {
            Kind::Open { path, creates, truncates } if ours(&path) => {
                if creates && !files.names.contains_key(&path) {
                    let file = files.create(&path);
                    push(directory_of(&path), Effect::Name { path: path.clone(), file: Some(file) });
                }
                if let Some(file) = files.names.get(&path) {
                    files.cursors.insert(*file, 0);
                    if truncates {
                        push(Object::File(*file), Effect::SetLength(0));
                    }
                }
            }
            Kind::Write { path, data, offset } if ours(&path) => {
                let file = files.names[&path];
                let cursor = files.cursors.entry(file).or_default();
                let offset = offset.map_or(*cursor, as_size);
                *cursor = offset + data.len();
                push(Object::File(file), Effect::Write { offset, data });
            }
            Kind::Truncate { path, length } if ours(&path) => {
                push(Object::File(files.names[&path]), Effect::SetLength(as_size(length)));
            }
            Kind::MakeDirectory { path } if ours(&path) => {
                push(directory_of(&path), Effect::Name { path, file: None });
            }
            Kind::Rename { from, to } if ours(&from) => {
                let file = files.names.remove(&from).expect("the renamed file is known");
                files.names.insert(to.clone(), file);
                push(directory_of(&to), Effect::Rename { from, to, file });
            }
            Kind::Unlink { path } if ours(&path) => {
                files.names.remove(&path);
                push(directory_of(&path), Effect::Unlink { path });
            }
            Kind::Sync { path } => self.syncs.push(Sync { start, end, object: files.object(path) }),
            _ => {}
        }
    }

    fn find_durable(&mut self) {
        for change in &mut self.changes {
            let covers = |sync: &&Sync| sync.start > change.end && sync.object == change.object;
            change.durable = self.syncs.iter().filter(covers).map(|sync| sync.end).min();
        }
    }

    /// The lines after which a name in the directory had just changed: where recovery code is weakest.
    pub fn renamings(&self) -> impl Iterator<Item = usize> {
        let of_names = self.changes.iter().filter(|change| matches!(change.object, Object::Directory(_)));
        of_names.map(|change| change.end)
    }

    /// The changes that outlive a cut after this line, and whether each is torn.
    fn survivors(&self, cut: usize, mercy: Mercy, dice: &mut Dice) -> Vec<(&Change, bool)> {
        let mut survivors = Vec::new();
        let mut later_content = false;
        let begun = self.changes.partition_point(|change| change.start <= cut);
        for change in self.changes[..begun].iter().rev() {
            let durable = change.durable.is_some_and(|line| line <= cut);
            let spared = dice.below(100) < mercy.survivors;
            let torn = !durable && dice.below(100) < mercy.torn;
            let journaled = later_content && matches!(change.effect, Effect::Rename { .. });
            if durable || spared || journaled {
                later_content |= matches!(change.object, Object::File(_));
                survivors.push((change, torn));
            }
        }
        survivors.reverse();
        survivors
    }

    /// Writes to `target` what is left of `store` when the power fails after line `cut` of the trace.
    pub fn cut(&self, cut: usize, mercy: Mercy, dice: &mut Dice, store: &Path, target: &Path) {
        let mut names: BTreeMap<&Path, Option<usize>> = BTreeMap::new();
        let mut contents: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
        for (change, torn) in self.survivors(cut, mercy, dice) {
            match (&change.effect, &change.object) {
                (Effect::Write { offset, data }, Object::File(file)) => {
                    write(contents.entry(*file).or_default(), *offset, data, torn.then_some(&mut *dice));
                }
                (Effect::SetLength(length), Object::File(file)) => contents.entry(*file).or_default().resize(*length, 0),
                (effect, _) => rename(&mut names, effect),
            }
        }
        materialize(&names, &contents, store, target);
    }
}

/// The files as the recorded process saw them, at the point of the trace that is being resolved.
#[derive(Debug, Default)]
struct Files {
    names: BTreeMap<PathBuf, usize>,
    /// Where a `write` without an offset goes: after the last one since the file was opened.
    cursors: BTreeMap<usize, usize>,
    created: usize,
}

impl Files {
    /// What a path stands for: a file that was made, else a directory.
    fn object(&self, path: PathBuf) -> Object {
        self.names.get(&path).map_or(Object::Directory(path), |file| Object::File(*file))
    }

    fn create(&mut self, path: &Path) -> usize {
        self.created += 1;
        self.names.insert(path.to_path_buf(), self.created);
        self.created
    }
}

fn directory_of(path: &Path) -> Object {
    Object::Directory(path.parent().expect("an absolute path").to_path_buf())
}

fn as_size(number: u64) -> usize {
    usize::try_from(number).expect("a size in memory")
}

fn write(content: &mut Vec<u8>, offset: usize, data: &[u8], torn: Option<&mut Dice>) {
    let end = offset + data.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    let Some(dice) = torn else {
        content[offset..end].copy_from_slice(data);
        return;
    };
    let mut position = offset;
    while position < end {
        let sector_end = ((position / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
        if dice.below(2) == 0 {
            content[position..sector_end].copy_from_slice(&data[position - offset..sector_end - offset]);
        }
        position = sector_end;
    }
}

fn rename<'a>(names: &mut BTreeMap<&'a Path, Option<usize>>, effect: &'a Effect) {
    match effect {
        Effect::Name { path, file } => {
            names.insert(path, *file);
        }
        Effect::Rename { from, to, file } => {
            names.remove(from.as_path());
            names.insert(to, Some(*file));
        }
        Effect::Unlink { path } => {
            names.remove(path.as_path());
        }
        Effect::Write { .. } | Effect::SetLength(_) => {
            unreachable!("changes of content belong to files")
        }
    }
}

fn materialize(names: &BTreeMap<&Path, Option<usize>>, contents: &BTreeMap<usize, Vec<u8>>, store: &Path, target: &Path) {
    for (path, file) in names {
        let inside = path.strip_prefix(store).expect("only the store is kept");
        let place = target.join(inside);
        // A name in a directory that is lost itself is lost, too.
        if *path != store && !names.contains_key(path.parent().expect("an absolute path")) {
            continue;
        }
        match file {
            None => fs::create_dir_all(place).expect("a directory"),
            Some(file) => fs::write(place, contents.get(file).map_or(&[][..], Vec::as_slice)).expect("a file"),
        }
    }
}
