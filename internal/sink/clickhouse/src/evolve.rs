//! What has to happen to a table so that it looks like a newer version of its source. No I/O happens here.
//!
//! ```text
//!   columns of the version ──by attribute number──▶ columns of the table ──▶ Plan ──▶ statements, or a rebuild
//!                          └─by name, where there is no tag                          (`rebuild.rs`)
//! ```
//!
//! # Invariants
//! - Every statement leaves the table in a state from which the same plan can be made again, and comes to the same
//!   end: tags change with their columns.
//! - A column is dropped, renamed or given another type only if a tag says that it carries one of the source's.
//! - Values that are there are converted as Postgres converts them, or the policy `type_changes` decides.
//! - In a history nothing is dropped: a column that the source no longer has is no longer written.
//!
//! Source: <https://www.postgresql.org/docs/current/catalog-pg-attribute.html>: numbers are never used again.

use crate::convert::{Conversion, conversion, literal_of};
use crate::found::{Existing, ExistingColumn};
use crate::layout::{Layout, NewColumn};
use crate::names::{identifier, literal};
use crate::native::Rules;
use crate::record::Tag;
use crate::types::{Base, Type, is_bytea, is_compatible};
use replicator_config::{ArrayColumns, TypeChanges};
use replicator_types::{Column, Relation};

/// What becomes of a column of the version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Fate {
    /// Index of the existing column that carries it; none when it is new.
    pub(crate) from: Option<usize>,
    /// The type that it is to have.
    pub(crate) of: Type,
}

/// What has to happen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Plan {
    /// One for each column of the version.
    pub(crate) fates: Vec<Fate>,
    /// Indexes of the columns that the source has no longer.
    pub(crate) retired: Vec<usize>,
    /// Whether the table has to be made anew: ClickHouse alters nothing that a table is sorted by.
    pub(crate) rebuild: bool,
    /// Whether rows are told apart by other columns than before.
    pub(crate) key_changes: bool,
}

/// A column whose type changed to one that its counterpart cannot be changed to, under `type_changes = "error"`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Refused {
    /// Index of the column.
    pub(crate) column: usize,
    /// The type there.
    pub(crate) exists: Type,
    /// The type that was wanted.
    pub(crate) wanted: Type,
}

/// Which existing column carries each column of the version: by the attribute number in its tag, else by name. Of several with
/// one number it is the first: the others are for [former](former_columns) versions.
pub(crate) fn carriers(relation: &Relation, existing: &Existing) -> Vec<Option<usize>> {
    let carries = |index: usize, test: &dyn Fn(&ExistingColumn) -> bool| {
        existing.columns.get(index).is_some_and(test).then_some(index)
    };
    let indexes = || 0..existing.columns.len();
    let mut found: Vec<Option<usize>> = relation
        .columns
        .iter()
        .map(|column| {
            let tag = Tag::of(relation, column);
            let is_it = |there: &ExistingColumn| {
                there.tag.is_some_and(|there| (there.oid, there.attnum) == (tag.oid, tag.attnum))
            };
            (column.attnum != 0).then(|| indexes().find_map(|index| carries(index, &is_it))).flatten()
        })
        .collect();
    for (index, column) in relation.columns.iter().enumerate() {
        if found.get(index).is_some_and(Option::is_some) {
            continue;
        }
        let is_it = |there: &ExistingColumn| {
            // Another attribute's is another column, whatever its name.
            let is_free =
                there.tag.is_none_or(|tag| tag.oid != relation.oid || tag.attnum == 0 || column.attnum == 0);
            is_free && there.name == column.name
        };
        let carrier =
            indexes().find_map(|index| carries(index, &is_it)).filter(|index| !found.contains(&Some(*index)));
        if let Some(slot) = found.get_mut(index) {
            *slot = carrier;
        }
    }
    found
}

/// What the table needs so that it looks like `relation`. `is_known` says that this sink has met the table in the
/// stream before: only then is anything but adding columns done.
pub(crate) fn plan(
    relation: &Relation,
    existing: &Existing,
    layout: &Layout,
    policy: TypeChanges,
    rules: Rules,
    is_known: bool,
) -> Result<Plan, Refused> {
    let carriers = carriers(relation, existing);
    let mut rebuild = false;
    let mut fates = Vec::with_capacity(carriers.len());
    for (index, (column, from)) in relation.columns.iter().zip(&carriers).enumerate() {
        let there = from.and_then(|from| existing.columns.get(from));
        let fate = match there {
            None => {
                rebuild |= column.is_key && layout.is_mirror() && !existing.is_distributed();
                Fate { from: None, of: type_of_new(column, layout, rules) }
            }
            Some(there) => {
                let wanted = layout.column_type(column);
                let (of, converts) = adapted(column, &wanted, there, layout, policy, is_known)
                    .ok_or_else(|| Refused { column: index, exists: there.of.clone(), wanted })?;
                rebuild |= converts || there.in_key && (of != there.of || there.name != column.name);
                Fate { from: *from, of }
            }
        };
        fates.push(fate);
    }
    let retired: Vec<usize> = existing
        .columns
        .iter()
        .enumerate()
        .filter(|(index, there)| {
            is_known
                && there.tag.is_some_and(|tag| tag.oid == relation.oid)
                && !carriers.contains(&Some(*index))
        })
        .map(|(index, _)| index)
        .collect();
    let key_changes =
        layout.is_mirror() && !existing.is_distributed() && key_differs(relation, existing, &carriers);
    let retires_key =
        retired.iter().any(|index| existing.columns.get(*index).is_some_and(|there| there.in_key));
    rebuild |= key_changes || retires_key && layout.is_mirror();
    Ok(Plan { fates, retired, rebuild, key_changes })
}

/// Whether the table is sorted by other columns than those that tell rows of this version apart.
pub(crate) fn key_differs(relation: &Relation, existing: &Existing, carriers: &[Option<usize>]) -> bool {
    let own_version = |there: &ExistingColumn| !relation.has_key() && there.name == crate::native::VERSION;
    let of_key = |index: usize| {
        relation
            .columns
            .iter()
            .zip(carriers)
            .any(|(column, carrier)| column.is_key && *carrier == Some(index))
    };
    let missing =
        relation.columns.iter().zip(carriers).any(|(column, carrier)| column.is_key && carrier.is_none());
    missing
        || existing
            .columns
            .iter()
            .enumerate()
            .any(|(index, there)| there.in_key != (of_key(index) || own_version(there)))
}

/// A new column is Nullable also where the source forbids NULL, unless the source says what the rows have that are
/// there already.
fn type_of_new(column: &Column, layout: &Layout, rules: Rules) -> Type {
    let of = layout.column_type(column);
    if column.is_key || default_of(column, &of, rules).is_some() {
        return of;
    }
    layout.column_type(&Column { not_null: false, ..column.clone() })
}

/// The type that an existing column is to have, and whether that takes a rebuild. `None` when the policy forbids.
fn adapted(
    column: &Column,
    wanted: &Type,
    there: &ExistingColumn,
    layout: &Layout,
    policy: TypeChanges,
    is_known: bool,
) -> Option<(Type, bool)> {
    let of = &there.of;
    let is_array = |base: &Base| matches!(base, Base::Array(_));
    // An array has no NULL: it turns into text when one may come, or when all arrays are to be text.
    let may_become_text = match layout.arrays {
        ArrayColumns::Auto => true,
        ArrayColumns::Text => there.tag.is_some() && conversion(&of.base, &wanted.base).is_some(),
        ArrayColumns::Array => false,
    };
    let becomes_text = is_known && may_become_text && is_array(&of.base) && wanted.base == Base::String;
    if is_compatible(column, wanted, of) && !becomes_text {
        if !is_known {
            return Some((of.clone(), false));
        }
        let may_be = wanted.nullable
            && !is_array(&of.base)
            && !there.in_key
            && !matches!(of.base, Base::Json | Base::Other(_));
        // What leaves the key keeps no NULL until one may come; what enters it must have none.
        let changed = if column.is_key && of.nullable && layout.is_mirror() {
            Type { nullable: false, ..of.clone() }
        } else if may_be {
            of.with_nullable()
        } else {
            of.clone()
        };
        return Some((changed, false));
    }
    if !is_known || there.tag.is_none() {
        return None;
    }
    let keeps_null = |to: &Type| Type {
        nullable: !column.is_key && !is_array(&to.base) && (to.nullable || of.nullable),
        ..to.clone()
    };
    if let Some(way) = conversion(&of.base, &wanted.base) {
        return Some((keeps_null(wanted), way == Conversion::Expression));
    }
    match policy {
        TypeChanges::Error => None,
        TypeChanges::Keep => Some((of.clone(), false)),
        TypeChanges::String => {
            let text = Type::of(Base::String, !column.is_key);
            let way = conversion(&of.base, &text.base)?;
            Some((text, way == Conversion::Expression))
        }
    }
}

/// What rows have that are older than the column, as an expression.
fn default_of(column: &Column, of: &Type, rules: Rules) -> Option<String> {
    let delimiter = match pgvalue::Type::of(column) {
        pgvalue::Type::Array(element) => element.delimiter(),
        _ => b',',
    };
    literal_of(column.missing_text.as_deref()?, of, is_bytea(column, of), delimiter, rules)
}

/// A column of the version as a new column of the table.
pub(crate) fn new_column(
    relation: &Relation,
    column: &Column,
    of: &Type,
    rules: Rules,
    system: Option<u64>,
) -> NewColumn {
    NewColumn {
        name: column.name.clone(),
        of: of.clone(),
        default: default_of(column, of, rules),
        comment: system.map(|system| Tag::of(relation, column).comment(system)),
    }
}

/// What a statement does, and the commands of its `ALTER TABLE`.
pub(crate) type Statement = (&'static str, Vec<String>);

/// The statements of a plan that needs no rebuild. An error is the name of a column that is in the way.
pub(crate) fn statements(
    plan: &Plan,
    relation: &Relation,
    existing: &Existing,
    layout: &Layout,
    rules: Rules,
    system: Option<u64>,
) -> Result<Vec<Statement>, String> {
    let mut out: Vec<Statement> = Vec::new();
    let mut names: Vec<Option<String>> =
        existing.columns.iter().map(|column| Some(column.name.clone())).collect();
    if layout.is_mirror() {
        let mut drops = Vec::new();
        for index in &plan.retired {
            if let Some(name) = names.get_mut(*index).and_then(Option::take) {
                drops.push(format!("DROP COLUMN IF EXISTS {}", identifier(&name)));
            }
        }
        if !drops.is_empty() {
            out.push(("dropping columns", drops));
        }
    }
    renames(plan, relation, existing, &mut names, &mut out)?;
    let (mut modified, mut tagged, mut added) = (Vec::new(), Vec::new(), Vec::new());
    let mut before: Option<&str> = None;
    for (column, fate) in relation.columns.iter().zip(&plan.fates) {
        let name = identifier(&column.name);
        let tag = Tag::of(relation, column);
        match fate.from.and_then(|from| existing.columns.get(from)) {
            None => {
                let place =
                    before.map_or_else(|| "FIRST".to_owned(), |name| format!("AFTER {}", identifier(name)));
                let definition = new_column(relation, column, &fate.of, rules, system).sql();
                added.push(format!("ADD COLUMN IF NOT EXISTS {definition} {place}"));
            }
            Some(there) => {
                let comment = system
                    .filter(|_| !there.is_commented && !existing.is_distributed() && there.tag != Some(tag))
                    .map(|system| literal(&tag.comment(system)));
                if fate.of != there.of {
                    let comment = comment.map_or_else(String::new, |comment| format!(" COMMENT {comment}"));
                    modified.push(format!("MODIFY COLUMN {name} {}{comment}", fate.of));
                } else if let Some(comment) = comment {
                    tagged.push(format!("COMMENT COLUMN {name} {comment}"));
                }
            }
        }
        before = Some(&column.name);
    }
    for (what, commands) in [
        ("changing types of columns", modified),
        ("adding columns", added),
        ("noting what columns carry", tagged),
    ] {
        if !commands.is_empty() {
            out.push((what, commands));
        }
    }
    Ok(out)
}

/// The same for an earlier version: of several columns with one number the one that has room for its values.
pub(crate) fn former_carriers(
    relation: &Relation,
    existing: &Existing,
    layout: &Layout,
) -> Vec<Option<usize>> {
    let with_room = |(column, carrier): (&Column, Option<usize>)| {
        let tag = Tag::of(relation, column);
        let wanted = layout.column_type(column);
        let has_room = |index: &usize| {
            existing.columns.get(*index).is_some_and(|there| is_compatible(column, &wanted, &there.of))
        };
        let is_its = |index: &usize| {
            let of = existing.columns.get(*index).and_then(|there| there.tag);
            tag.attnum != 0 && of.is_some_and(|of| (of.oid, of.attnum) == (tag.oid, tag.attnum))
        };
        let other = || (0..existing.columns.len()).filter(is_its).find(has_room);
        carrier.filter(has_room).or_else(other).or(carrier)
    };
    relation.columns.iter().zip(carriers(relation, existing)).map(with_room).collect()
}

/// Columns that a history lacks for rows of an earlier version than it was told of last: that came and went meanwhile, or
/// were of a type that theirs has no room for now. These have their own, so that nothing is lost. An error is the name of a
/// column that is in the way.
pub(crate) fn former_columns(
    relation: &Relation,
    existing: &Existing,
    layout: &Layout,
    policy: TypeChanges,
    system: u64,
) -> Result<Vec<NewColumn>, String> {
    let mut taken: Vec<String> = existing.columns.iter().map(|column| column.name.clone()).collect();
    let mut former = Vec::new();
    for (column, carrier) in relation.columns.iter().zip(former_carriers(relation, existing, layout)) {
        let wanted = layout.column_type(&Column { not_null: false, ..column.clone() });
        let there = carrier.and_then(|carrier| existing.columns.get(carrier));
        // What is not known by number is known by no tag either, and would be added again and again.
        let has_room =
            |there: &ExistingColumn| policy == TypeChanges::Keep || is_compatible(column, &wanted, &there.of);
        if column.attnum == 0 || there.is_some_and(has_room) {
            continue;
        }
        let tag = Tag::of(relation, column);
        let numbered = retired_name(&column.name, tag);
        let names = [column.name.clone(), numbered.clone(), format!("{numbered}_{}", tag.type_oid)];
        let Some(name) = names.into_iter().find(|name| !taken.contains(name)) else {
            return Err(numbered);
        };
        taken.push(name.clone());
        former.push(NewColumn { name, of: wanted, default: None, comment: Some(tag.comment(system)) });
    }
    Ok(former)
}

/// The name of a history's column whose own another has taken.
pub(crate) fn retired_name(name: &str, tag: Tag) -> String {
    format!("{name}_{}", tag.attnum)
}

/// Renames, each in a statement of its own: a name is free when its turn comes. Names that are exchanged go by way
/// of a third.
fn renames(
    plan: &Plan,
    relation: &Relation,
    existing: &Existing,
    names: &mut [Option<String>],
    out: &mut Vec<Statement>,
) -> Result<(), String> {
    let mut waiting: Vec<(usize, String)> = Vec::new();
    for (column, fate) in relation.columns.iter().zip(&plan.fates) {
        if let Some(from) = fate.from
            && existing.columns.get(from).is_some_and(|there| there.name != column.name)
        {
            waiting.push((from, column.name.clone()));
        }
    }
    // In a history a column stays that the source dropped; another may have its name.
    for index in &plan.retired {
        let Some(there) = existing.columns.get(*index) else { continue };
        let is_wanted = relation.columns.iter().any(|column| column.name == there.name);
        if let Some(tag) = there.tag.filter(|_| is_wanted && names.get(*index).is_some_and(Option::is_some)) {
            waiting.push((*index, retired_name(&there.name, tag)));
        }
    }
    let new_is_in_the_way =
        |name: &str, names: &[Option<String>]| names.iter().flatten().any(|taken| taken == name);
    while !waiting.is_empty() {
        let free = waiting.iter().position(|(_, to)| !new_is_in_the_way(to, names));
        let (index, to) = match free {
            Some(free) => waiting.remove(free),
            None => {
                // All are in each other's way, or a column that is none of ours is in somebody's.
                let (index, to) = waiting.first().cloned().unwrap_or_default();
                let is_ours = |name: &String| {
                    waiting.iter().any(|(index, _)| names.get(*index).and_then(Option::as_ref) == Some(name))
                };
                if let Some((_, blocked)) = waiting.iter().find(|(_, to)| !is_ours(to)) {
                    return Err(blocked.clone());
                }
                (index, format!("{to}_renaming"))
            }
        };
        let Some(slot) = names.get_mut(index) else { continue };
        if let Some(from) = slot.replace(to.clone()) {
            let command = format!("RENAME COLUMN {} TO {}", identifier(&from), identifier(&to));
            out.push(("renaming a column", vec![command]));
        }
    }
    // A column that is added must not meet one of the same name either.
    let added = relation.columns.iter().zip(&plan.fates).filter(|(_, fate)| fate.from.is_none());
    let mut blocked = added.filter(|(column, _)| new_is_in_the_way(&column.name, names));
    blocked.next().map_or(Ok(()), |(column, _)| Err(column.name.clone()))
}
