#include "collimate/base/hdf5_file.hpp"

#include <hdf5.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>

#include "collimate/base/error.hpp"
#include "collimate/base/file_kind.hpp"

namespace collimate {
namespace {

constexpr std::size_t longest_attribute = 60000;  // object headers hold 64 KiB
constexpr std::size_t most_open_datasets = 64;

/// Prepares the library once: silent, and without its exit handler, which can hang after a write has failed on a full disk.
void prepare_library() {
  static const bool done = [] {
    H5dont_atexit();
    H5open();
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
    return true;
  }();
  static_cast<void>(done);
}

/// An HDF5 identifier that closes itself.
class Id {
 public:
  using Close = herr_t (*)(hid_t);
  Id(hid_t id, Close close) : id_(id), close_(close) {}
  Id(const Id&) = delete;
  ~Id() {
    if (id_ >= 0) close_(id_);
  }
  operator hid_t() const { return id_; }

 private:
  hid_t id_;
  Close close_;
};

/// Why a call failed.
struct Cause {
  std::string library;  ///< the innermost entry of the library's error stack, without its details
  std::string system;   ///< what the operating system said; empty: nothing
};

/// The error stack has texts such as "file write failed: time = ..., error message = 'No space left on device', buf = ...".
Cause take_cause() {
  std::string text;
  const auto take_first = [](unsigned, const H5E_error2_t* entry, void* out) -> herr_t {
    auto& first = *static_cast<std::string*>(out);
    if (first.empty() && entry->desc) first = entry->desc;
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_first, &text);
  H5Eclear2(H5E_DEFAULT);
  constexpr std::string_view key = "error message = '";
  const auto begin = text.find(key);
  const auto end = begin == std::string::npos ? begin : text.find('\'', begin + key.size());
  return {text.substr(0, text.find(": ")), end == std::string::npos ? "" : text.substr(begin + key.size(), end - begin - key.size())};
}

std::string_view hint(std::string_view text) {
  const auto says = [&](std::string_view part) { return text.find(part) != std::string_view::npos; };
  if (says("No space left") || says("File too large") || says("quota")) return "; the disk is full: free space or write to another folder";
  if (says("Permission denied") || says("Read-only")) return "; choose a place that you may write to";
  if (says("No such file")) return "; check the path";
  if (says("already exists")) return "; it can be made only once";
  return "";
}

hid_t memory_type(DType dtype) {
  switch (dtype) {
    case DType::f32: return H5T_NATIVE_FLOAT;
    case DType::f64: return H5T_NATIVE_DOUBLE;
    case DType::i32: return H5T_NATIVE_INT32;
    case DType::i64: return H5T_NATIVE_INT64;
    case DType::u8: return H5T_NATIVE_UINT8;
    case DType::u64: return H5T_NATIVE_UINT64;
    case DType::bf16: break;  // HDF5 knows no such numbers
  }
  return -1;
}

hid_t file_type(DType dtype) {
  switch (dtype) {
    case DType::f32: return H5T_IEEE_F32LE;
    case DType::f64: return H5T_IEEE_F64LE;
    case DType::i32: return H5T_STD_I32LE;
    case DType::i64: return H5T_STD_I64LE;
    case DType::u8: return H5T_STD_U8LE;
    case DType::u64: return H5T_STD_U64LE;
    case DType::bf16: break;  // HDF5 knows no such numbers
  }
  return -1;
}

hid_t text_type(std::size_t bytes) {
  const hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, std::max<std::size_t>(bytes, 1));
  H5Tset_strpad(type, H5T_STR_NULLPAD);
  H5Tset_cset(type, H5T_CSET_UTF8);
  return type;
}

std::string without_padding(std::string text) {
  while (!text.empty() && text.back() == '\0') text.pop_back();
  return text;
}

/// Access without file locks: they fail on some cluster file systems, and a file is written once under a temporary name.
hid_t access_properties() {
  const hid_t properties = H5Pcreate(H5P_FILE_ACCESS);
  H5Pset_fclose_degree(properties, H5F_CLOSE_STRONG);
  H5Pset_file_locking(properties, false, true);
  return properties;
}

hid_t link_properties() {
  const hid_t properties = H5Pcreate(H5P_LINK_CREATE);
  H5Pset_create_intermediate_group(properties, 1);
  return properties;
}

std::string joined(std::string_view object) { return object.empty() ? "" : fmt::format(" '{}' of", object); }

}  // namespace

template <class T>
T Hdf5File::check(T result, std::string_view action, std::string_view object) const {
  if (result < 0) {
    const Cause cause = take_cause();
    const bool damaged = reads_ && cause.system.empty();
    require(!damaged || cause.library != "truncated file", "the HDF5 file '{}' was cut short: copy it again or make it again", path_);
    require(!damaged, "the HDF5 file '{}' is damaged{}: copy it again or make it again", path_,
            object.empty() ? "" : fmt::format(" at '{}'", object));
    const std::string& text = cause.system.empty() ? cause.library : cause.system;
    fail("cannot {}{} the HDF5 file '{}': {}{}", action, joined(object), path_, text.empty() ? "no cause was given" : text, hint(text));
  }
  return result;
}

Hdf5File Hdf5File::open(const std::string& path) {
  prepare_library();
  namespace fs = std::filesystem;
  std::error_code error;
  require(fs::exists(path, error), "the file '{}' does not exist; check the path", path);
  require(!fs::is_directory(path, error), "'{}' is a folder; an HDF5 file is expected", path);
  require(static_cast<bool>(std::ifstream(path)), "the file '{}' cannot be read; check its permissions", path);
  require_file_kind(path, {FileKind::hdf5, FileKind::text, FileKind::json}, "an HDF5 file that Collimate has made");
  const Id access(access_properties(), H5Pclose);
  require(H5Fis_hdf5(path.c_str()) > 0, "'{}' is not an HDF5 file; name one that Collimate has made, such as a dataset of `collimate prepare`", path);
  Hdf5File file(path, true);
  file.file_ = file.check(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access), "open");
  return file;
}

Hdf5File Hdf5File::create(const std::string& path) {
  prepare_library();
  const Id access(access_properties(), H5Pclose);
  Hdf5File file(path, false);
  file.file_ = file.check(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access), "create");
  return file;
}

Hdf5File::Hdf5File(Hdf5File&& other) noexcept
    : path_(std::move(other.path_)), reads_(other.reads_), file_(std::exchange(other.file_, -1)), datasets_(std::exchange(other.datasets_, {})) {}

Hdf5File& Hdf5File::operator=(Hdf5File&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(reads_, other.reads_);
  std::swap(file_, other.file_);
  std::swap(datasets_, other.datasets_);
  return *this;
}

Hdf5File::~Hdf5File() {
  close_datasets();
  if (file_ >= 0) H5Fclose(file_);
}

void Hdf5File::close_datasets() const noexcept {
  for (const auto& [name, id] : datasets_) H5Dclose(id);
  datasets_.clear();
}

void Hdf5File::close() {
  if (file_ < 0) return;
  static_cast<void>(check(H5Fflush(file_, H5F_SCOPE_GLOBAL), "write to"));
  close_datasets();
  static_cast<void>(check(H5Fclose(std::exchange(file_, -1)), "close"));
}

bool Hdf5File::exists(const std::string& name) const {
  // H5Lexists asks for one link at a time: a missing parent is an error to it.
  for (std::size_t end = name.find('/', 1); true; end = name.find('/', end + 1)) {
    const std::string part = name.substr(0, end);
    if (!part.empty() && part != "/" && check(H5Lexists(file_, part.c_str(), H5P_DEFAULT), "look up", part) == 0) return false;
    if (end == std::string::npos) return true;
  }
}

bool Hdf5File::is_group(const std::string& name) const {
  if (!exists(name)) return false;
  const Id object(check(H5Oopen(file_, name.c_str(), H5P_DEFAULT), "open", name), H5Oclose);
  return H5Iget_type(object) == H5I_GROUP;
}

std::vector<std::string> Hdf5File::children(const std::string& group) const {
  require(is_group(group), "the HDF5 file '{}' has no group '{}'", path_, group);
  const Id id(check(H5Gopen2(file_, group.c_str(), H5P_DEFAULT), "open", group), H5Gclose);
  std::vector<std::string> names;
  const auto take = [](hid_t, const char* name, const H5L_info_t*, void* out) -> herr_t {
    static_cast<std::vector<std::string>*>(out)->push_back(name);
    return 0;
  };
  static_cast<void>(check(H5Literate(id, H5_INDEX_NAME, H5_ITER_INC, nullptr, take, &names), "list", group));
  return names;
}

void Hdf5File::create_dataset(const std::string& name, DType dtype, Shape shape, std::int64_t chunk_rows) {
  ensure(shape.rank() >= 1, "the dataset '{}' needs at least one axis", name);
  ensure(file_type(dtype) >= 0, "the dataset '{}' cannot hold {}: widen it to f32", name, name_of(dtype));
  std::array<hsize_t, 4> extent{}, most{}, chunk{};
  for (int axis = 0; axis < shape.rank(); ++axis) extent[axis] = most[axis] = chunk[axis] = static_cast<hsize_t>(shape[axis]);
  const Id creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_obj_track_times(creation, false);  // equal content gives equal bytes
  if (chunk_rows > 0) {
    most[0] = H5S_UNLIMITED;
    chunk[0] = static_cast<hsize_t>(chunk_rows);
    static_cast<void>(check(H5Pset_chunk(creation, shape.rank(), chunk.data()), "set the chunks of", name));
  }
  const Id space(check(H5Screate_simple(shape.rank(), extent.data(), most.data()), "shape", name), H5Sclose);
  const Id links(link_properties(), H5Pclose);
  const Id id(check(H5Dcreate2(file_, name.c_str(), file_type(dtype), space, links, creation, H5P_DEFAULT), "create", name), H5Dclose);
}

Hdf5File::Handle Hdf5File::dataset(const std::string& name) const {
  if (const auto found = datasets_.find(name); found != datasets_.end()) return found->second;
  require(exists(name), "the HDF5 file '{}' has no dataset '{}'; it is not the kind of file that is expected here", path_, name);
  if (datasets_.size() >= most_open_datasets) close_datasets();
  return datasets_[name] = check(H5Dopen2(file_, name.c_str(), H5P_DEFAULT), "open", name);
}

Hdf5Info Hdf5File::info(const std::string& name) const {
  const hid_t id = dataset(name);
  const Id space(check(H5Dget_space(id), "read the shape of", name), H5Sclose);
  const Id type(check(H5Dget_type(id), "read the type of", name), H5Tclose);
  const int rank = check(H5Sget_simple_extent_ndims(space), "read the shape of", name);
  require(rank >= 1 && rank <= 4, "the dataset '{}' of the HDF5 file '{}' has {} axes; 1 to 4 are expected", name, path_, rank);
  std::array<hsize_t, 4> extent{}, most{};
  H5Sget_simple_extent_dims(space, extent.data(), most.data());
  Hdf5Info info;
  const auto at = [&](int axis) { return static_cast<std::int64_t>(extent[axis]); };
  if (rank == 1) info.shape = {at(0)};
  if (rank == 2) info.shape = {at(0), at(1)};
  if (rank == 3) info.shape = {at(0), at(1), at(2)};
  if (rank == 4) info.shape = {at(0), at(1), at(2), at(3)};
  info.extendible = most[0] == H5S_UNLIMITED;
  for (const DType dtype : dtypes)
    if (const hid_t known = file_type(dtype); known >= 0 && H5Tequal(type, known) > 0) {
      info.dtype = dtype;
      return info;
    }
  fail("the dataset '{}' of the HDF5 file '{}' has a type that Collimate does not use", name, path_);
}

void Hdf5File::transfer(const std::string& name, DType dtype, std::int64_t first_row, void* data, std::int64_t count, bool to_file) const {
  const Hdf5Info held = info(name);
  require(held.dtype == dtype, "the dataset '{}' of '{}' holds {}, not {}", name, path_, name_of(held.dtype), name_of(dtype));
  std::int64_t row = 1;
  for (int axis = 1; axis < held.shape.rank(); ++axis) row *= held.shape[axis];
  if (count == 0) return;
  const std::int64_t rows = row ? count / row : 0;
  require(rows * row == count && first_row >= 0 && first_row + rows <= held.shape[0],
          "{} elements from row {} do not fit the dataset '{}' of '{}', whose shape is {}", count, first_row, name, path_, held.shape.text());
  std::array<hsize_t, 4> start{}, extent{};
  for (int axis = 0; axis < held.shape.rank(); ++axis) extent[axis] = static_cast<hsize_t>(held.shape[axis]);
  start[0] = static_cast<hsize_t>(first_row);
  extent[0] = static_cast<hsize_t>(rows);
  const hid_t id = dataset(name);
  const Id space(check(H5Dget_space(id), "read the shape of", name), H5Sclose);
  static_cast<void>(check(H5Sselect_hyperslab(space, H5S_SELECT_SET, start.data(), nullptr, extent.data(), nullptr), "select", name));
  const Id memory(check(H5Screate_simple(held.shape.rank(), extent.data(), nullptr), "select", name), H5Sclose);
  if (to_file)
    static_cast<void>(check(H5Dwrite(id, memory_type(dtype), memory, space, H5P_DEFAULT, data), "write", name));
  else
    static_cast<void>(check(H5Dread(id, memory_type(dtype), memory, space, H5P_DEFAULT, data), "read", name));
}

void Hdf5File::write_rows(const std::string& name, DType dtype, std::int64_t first_row, const void* data, std::int64_t count) {
  transfer(name, dtype, first_row, const_cast<void*>(data), count, true);
}

void Hdf5File::read_rows(const std::string& name, DType dtype, std::int64_t first_row, void* data, std::int64_t count) const {
  transfer(name, dtype, first_row, data, count, false);
}

void Hdf5File::append_rows(const std::string& name, DType dtype, const void* data, std::int64_t count) {
  const Hdf5Info held = info(name);
  require(held.extendible, "the dataset '{}' of '{}' has a fixed size: nothing can be appended", name, path_);
  std::array<hsize_t, 4> extent{};
  std::int64_t row = 1;
  for (int axis = 0; axis < held.shape.rank(); ++axis) {
    extent[axis] = static_cast<hsize_t>(held.shape[axis]);
    if (axis > 0) row *= held.shape[axis];
  }
  ensure(row > 0 && count % row == 0, "{} elements are not whole rows of the dataset '{}'", count, name);
  extent[0] += static_cast<hsize_t>(count / row);
  static_cast<void>(check(H5Dset_extent(dataset(name), extent.data()), "extend", name));
  write_rows(name, dtype, held.shape[0], data, count);
}

void Hdf5File::write_text(const std::string& name, std::string_view text) {
  const Id type(check(text_type(text.size()), "create", name), H5Tclose);
  const Id space(check(H5Screate(H5S_SCALAR), "create", name), H5Sclose);
  const Id links(link_properties(), H5Pclose);
  const Id creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_obj_track_times(creation, false);
  const Id id(check(H5Dcreate2(file_, name.c_str(), type, space, links, creation, H5P_DEFAULT), "create", name), H5Dclose);
  const std::string padded = text.empty() ? std::string(1, '\0') : std::string(text);
  static_cast<void>(check(H5Dwrite(id, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, padded.data()), "write", name));
}

std::string Hdf5File::read_text(const std::string& name) const {
  const hid_t id = dataset(name);
  const Id type(check(H5Dget_type(id), "read the type of", name), H5Tclose);
  const Id space(check(H5Dget_space(id), "read the shape of", name), H5Sclose);
  const bool plain = H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) == 0 && H5Sget_simple_extent_npoints(space) == 1;
  require(plain, "the dataset '{}' of the HDF5 file '{}' is not a text", name, path_);
  std::string text(H5Tget_size(type), '\0');
  static_cast<void>(check(H5Dread(id, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, text.data()), "read", name));
  return without_padding(std::move(text));
}

void Hdf5File::set_attribute(const std::string& object, const std::string& key, std::string_view text) {
  ensure(text.size() <= longest_attribute, "the attribute '{}' of '{}' has {} bytes; write it as a text dataset", key, object, text.size());
  const Id type(check(text_type(text.size()), "create", key), H5Tclose);
  const Id space(check(H5Screate(H5S_SCALAR), "create", key), H5Sclose);
  const Id id(check(H5Acreate_by_name(file_, object.c_str(), key.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                    "create the attribute", key),
              H5Aclose);
  const std::string padded = text.empty() ? std::string(1, '\0') : std::string(text);
  static_cast<void>(check(H5Awrite(id, type, padded.data()), "write the attribute", key));
}

void Hdf5File::set_attribute(const std::string& object, const std::string& key, std::int64_t value) {
  const Id space(check(H5Screate(H5S_SCALAR), "create", key), H5Sclose);
  const Id id(check(H5Acreate_by_name(file_, object.c_str(), key.c_str(), H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                    "create the attribute", key),
              H5Aclose);
  static_cast<void>(check(H5Awrite(id, H5T_NATIVE_INT64, &value), "write the attribute", key));
}

std::vector<std::string> Hdf5File::attributes(const std::string& object) const {
  const Id id(check(H5Oopen(file_, object.c_str(), H5P_DEFAULT), "open", object), H5Oclose);
  std::vector<std::string> names;
  const auto take = [](hid_t, const char* name, const H5A_info_t*, void* out) -> herr_t {
    static_cast<std::vector<std::string>*>(out)->push_back(name);
    return 0;
  };
  static_cast<void>(check(H5Aiterate2(id, H5_INDEX_NAME, H5_ITER_INC, nullptr, take, &names), "list the attributes of", object));
  return names;
}

bool Hdf5File::has_attribute(const std::string& object, const std::string& key) const {
  return exists(object) && check(H5Aexists_by_name(file_, object.c_str(), key.c_str(), H5P_DEFAULT), "look up the attribute", key) > 0;
}

std::string Hdf5File::text_attribute(const std::string& object, const std::string& key) const {
  require(has_attribute(object, key), "'{}' of the HDF5 file '{}' has no attribute '{}'; it is not the kind of file that is expected here",
          object, path_, key);
  const Id id(check(H5Aopen_by_name(file_, object.c_str(), key.c_str(), H5P_DEFAULT, H5P_DEFAULT), "open the attribute", key), H5Aclose);
  const Id type(check(H5Aget_type(id), "read the attribute", key), H5Tclose);
  require(H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) == 0, "the attribute '{}' of '{}' in '{}' is not a text", key, object,
          path_);
  std::string text(H5Tget_size(type), '\0');
  static_cast<void>(check(H5Aread(id, type, text.data()), "read the attribute", key));
  return without_padding(std::move(text));
}

std::int64_t Hdf5File::integer_attribute(const std::string& object, const std::string& key) const {
  require(has_attribute(object, key), "'{}' of the HDF5 file '{}' has no attribute '{}'; it is not the kind of file that is expected here",
          object, path_, key);
  const Id id(check(H5Aopen_by_name(file_, object.c_str(), key.c_str(), H5P_DEFAULT, H5P_DEFAULT), "open the attribute", key), H5Aclose);
  const Id type(check(H5Aget_type(id), "read the attribute", key), H5Tclose);
  require(H5Tget_class(type) == H5T_INTEGER, "the attribute '{}' of '{}' in '{}' is not an integer", key, object, path_);
  std::int64_t value = 0;
  static_cast<void>(check(H5Aread(id, H5T_NATIVE_INT64, &value), "read the attribute", key));
  return value;
}

}  // namespace collimate
