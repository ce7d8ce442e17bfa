//! Dockerfiles: parsing never fails, it explains; what it accepts prints as a file that means
//! the same; and everything behind the parser takes what it accepts.
#![no_main]

use std::collections::BTreeMap;

use builder::dockerfile::lint::{self, Base, Input, Source};
use builder::dockerfile::{self, has_errors};
use builder::plan::{Options, Planned, describe, plan, predefined};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (file, found) = dockerfile::parse(text);
    for problem in &found {
        assert!(problem.render("Dockerfile", text, false).ends_with('\n'));
    }
    let _frontend = dockerfile::check_frontend(text, &BTreeMap::new());
    let options = Options::default();
    let rules = lint::options(text).unwrap_or_default();
    let input = Input {
        file: &file,
        found: &found,
        predefined: &predefined(&file, &options),
        build_args: &options.build_args,
        platform: &options.platform,
        ignore: None,
        base: &|_| Some(Base::default()),
        stages: None,
    };
    let warnings = lint::lint(&input, &rules);
    let source = Source { name: "Dockerfile", text };
    assert_eq!(lint::to_text(&warnings, source).is_empty(), warnings.is_empty());
    if has_errors(&found) {
        return;
    }
    assert!(dockerfile::dump(text).is_ok(), "what makes sense is good syntax");
    let (again, problems) = dockerfile::parse(&dockerfile::print(&file));
    assert!(!has_errors(&problems), "{problems:?}");
    assert_eq!(again, file);
    if let Ok(Planned::Ready(plan)) = plan(&file, &options, &BTreeMap::new()) {
        assert!(plan.stages.contains_key(&plan.target));
    }
    let _outline = describe::outline(&file, text, &options, &|_| None);
});
