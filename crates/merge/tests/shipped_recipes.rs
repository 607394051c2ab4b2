//! The recipes of the folder `recipes` are recipes, without a key that has no effect.

use std::path::Path;
use std::sync::Arc;

use deltaic_merge::recipe::{Document, UnknownPolicy, parse};

#[test]
fn every_recipe_of_the_folder_is_read_without_a_word() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    let mut read = 0;
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "yml") {
            let (recipe, _) =
                parse(Arc::new(Document::read(&path).unwrap()), UnknownPolicy::Strict).unwrap_or_else(|error| panic!("{error}"));
            assert!(recipe.seed.is_some() && recipe.base_model.is_some(), "{}", path.display());
            read += 1;
        }
    }
    assert!(read >= 4);
}
