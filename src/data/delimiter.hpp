#pragma once
#include <string>
#include <string_view>

namespace collimate {

/// What stands between the columns of a table: a tab where the name says so (.tsv, .tab), else what parts the first lines into the same
/// number of columns, a comma before others. head: the first bytes of the file.
char delimiter_of(const std::string& path, std::string_view head);

/// The columns of a file that is no table by its name, but has a header line of usual names and as many columns in the lines behind it;
/// "" where it has not.
std::string columns_of(std::string_view head);

}  // namespace collimate
