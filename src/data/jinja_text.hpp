#pragma once
#include <string>
#include <string_view>

namespace collimate {

/// A Jinja text in a form that does not depend on how it was written: equal forms print equal texts. Blanks inside tags, comments, kinds of
/// quotes and escapes, m['role'] or m.role, the names of loop variables and how printed words are cut into pieces make no difference; blanks
/// that are printed do. Blocks and the lines around them are trimmed as chat templates are (trim_blocks, lstrip_blocks).
/// A text that ends inside a tag or a quoted word gives "".
std::string canonical_jinja(std::string_view text);

}  // namespace collimate
