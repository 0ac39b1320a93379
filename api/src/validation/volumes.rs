//! Checks the volumes of a pod.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Errors, Path, containers, entries, given, list, text};
use crate::name;

const MODE_MAX: i64 = 0o777;
/// Fields of a pod that may become files.
const FILE_FIELDS: &[&str] =
    &["metadata.name", "metadata.namespace", "metadata.labels", "metadata.annotations", "metadata.uid"];
const HOST_PATH_KINDS: [&str; 7] =
    ["DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"];

/// Checks all volumes; returns their names.
pub fn check(volumes: &Value, path: &Path<'_>, errors: &mut Errors) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (index, volume) in list(volumes).iter().enumerate() {
        let place = path.index(index);
        let name = text(&volume["name"]);
        if name.is_empty() {
            errors.required(&place.field("name"), "");
        } else {
            errors.reasons(&place.field("name"), name, name::dns1123_label(name));
            if !names.insert(name.to_owned()) {
                errors.duplicate(&place.field("name"), name);
            }
        }
        check_source(volume, &place, errors);
    }
    names
}

fn check_source(volume: &Value, path: &Path<'_>, errors: &mut Errors) {
    let sources: Vec<&str> = entries(volume)
        .filter(|(key, value)| *key != "name" && !value.is_null())
        .map(|(key, _)| key)
        .collect();
    match sources.as_slice() {
        [] => errors.required(path, "must specify a volume type"),
        [_, others @ ..] => others.iter().for_each(|other| {
            errors.forbidden(&path.field(other), "may not specify more than 1 volume type")
        }),
    }
    let host_path = &volume["hostPath"];
    if !host_path.is_null() {
        let place = path.field("hostPath");
        match text(&host_path["path"]) {
            "" => errors.required(&place.field("path"), ""),
            path if path.split('/').any(|part| part == "..") => {
                errors.invalid(&place.field("path"), path, "must not contain '..'")
            }
            _ => {}
        }
        errors.optional_one_of(&place.field("type"), &host_path["type"], &HOST_PATH_KINDS);
    }
    let config_map = &volume["configMap"];
    if !config_map.is_null() {
        let place = path.field("configMap");
        require_name(&config_map["name"], &place.field("name"), errors);
        check_mode(&config_map["defaultMode"], &place.field("defaultMode"), errors);
        check_items(&config_map["items"], &place.field("items"), errors);
    }
    let secret = &volume["secret"];
    if !secret.is_null() {
        let place = path.field("secret");
        require_name(&secret["secretName"], &place.field("secretName"), errors);
        check_mode(&secret["defaultMode"], &place.field("defaultMode"), errors);
        check_items(&secret["items"], &place.field("items"), errors);
    }
    let downward = &volume["downwardAPI"];
    if !downward.is_null() {
        let place = path.field("downwardAPI");
        check_mode(&downward["defaultMode"], &place.field("defaultMode"), errors);
        check_downward(&downward["items"], &place.field("items"), errors);
    }
    let projected = &volume["projected"];
    if !projected.is_null() {
        check_projected(projected, &path.field("projected"), errors);
    }
    let claim = &volume["persistentVolumeClaim"];
    if !claim.is_null() {
        require_name(&claim["claimName"], &path.field("persistentVolumeClaim").field("claimName"), errors);
    }
}

fn check_projected(projected: &Value, path: &Path<'_>, errors: &mut Errors) {
    check_mode(&projected["defaultMode"], &path.field("defaultMode"), errors);
    let sources = path.field("sources");
    for (index, source) in list(&projected["sources"]).iter().enumerate() {
        let place = sources.index(index);
        for kind in ["configMap", "secret"] {
            if !source[kind].is_null() {
                let place = place.field(kind);
                require_name(&source[kind]["name"], &place.field("name"), errors);
                check_items(&source[kind]["items"], &place.field("items"), errors);
            }
        }
        check_downward(&source["downwardAPI"]["items"], &place.field("downwardAPI").field("items"), errors);
        let token = &source["serviceAccountToken"];
        if !token.is_null() {
            let place = place.field("serviceAccountToken");
            if token["expirationSeconds"].as_i64().is_some_and(|seconds| seconds < 600) {
                errors.invalid(
                    &place.field("expirationSeconds"),
                    token["expirationSeconds"].clone(),
                    "may not specify a duration less than 10 minutes",
                );
            }
            check_file(&token["path"], &place.field("path"), errors);
        }
    }
}

fn check_downward(items: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (index, item) in list(items).iter().enumerate() {
        let place = path.index(index);
        check_file(&item["path"], &place.field("path"), errors);
        check_mode(&item["mode"], &place.field("mode"), errors);
        containers::check_field(&item["fieldRef"], &place.field("fieldRef"), FILE_FIELDS, errors);
        match (item["fieldRef"].is_null(), item["resourceFieldRef"].is_null()) {
            (true, true) => errors.required(&place, "one of fieldRef and resourceFieldRef is required"),
            (false, false) => errors.invalid(
                &place,
                "resource",
                "fieldRef and resourceFieldRef can not be specified simultaneously",
            ),
            _ => {}
        }
    }
}

fn check_items(items: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (index, item) in list(items).iter().enumerate() {
        let place = path.index(index);
        if !given(&item["key"]) {
            errors.required(&place.field("key"), "");
        }
        check_file(&item["path"], &place.field("path"), errors);
        check_mode(&item["mode"], &place.field("mode"), errors);
    }
}

fn check_file(file: &Value, path: &Path<'_>, errors: &mut Errors) {
    let file = text(file);
    if file.is_empty() {
        errors.required(path, "");
    } else if file.starts_with('/') {
        errors.invalid(path, file, "must be a relative path");
    } else if file.split('/').any(|part| part == "..") {
        errors.invalid(path, file, "must not contain '..'");
    } else if file.starts_with("..") {
        errors.invalid(path, file, "must not start with '..'");
    }
}

fn check_mode(mode: &Value, path: &Path<'_>, errors: &mut Errors) {
    if mode.as_i64().is_some_and(|mode| !(0..=MODE_MAX).contains(&mode)) {
        errors.invalid(path, mode.clone(), "must be a number between 0 and 0777 (octal), both inclusive");
    }
}

fn require_name(name: &Value, path: &Path<'_>, errors: &mut Errors) {
    if !given(name) {
        errors.required(path, "");
    }
}
