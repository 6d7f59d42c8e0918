// SPDX-License-Identifier: GPL-2.0-only
#include "pet_archive.h"
#include "pet_elements.h"

#include <caffe2/serialize/inline_container.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <sstream>

namespace pet {

namespace {

using caffe2::serialize::PyTorchStreamReader;

constexpr int our_format = 10;
constexpr int oldest_format = 9;
const std::string lines_record = "extra/pet_mlip.txt";
const std::string json_record = "extra/pet_mlip.json";

class Damaged : public std::runtime_error {
public:
  using std::runtime_error::runtime_error;
};

// Throws unless so many bytes are there. Places come from the file: sums with them may overflow.
void check_bytes(const std::string &bytes, uint64_t at, uint64_t size) {
  if (at > bytes.size() || size > bytes.size() - at)
    throw Damaged("it ends too early");
}

// Numbers in zip archives, least significant byte first.
uint64_t number(const std::string &bytes, uint64_t at, uint64_t offset, int size) {
  check_bytes(bytes, at, offset + size);
  at += offset;
  uint64_t value = 0;
  for (int k = size; k-- > 0;)
    value = value << 8 | static_cast<unsigned char>(bytes[at + k]);
  return value;
}

// Checksums of the archive's records, by name, from the directory at its end.
std::map<std::string, uint32_t> checksums(const std::string &bytes) {
  constexpr const char end_mark[] = "PK\x05\x06", locator64_mark[] = "PK\x06\x07";
  constexpr uint64_t end64_number = 0x06064b50, entry_number = 0x02014b50;
  const size_t end = bytes.rfind(end_mark);
  if (end == std::string::npos)
    throw Damaged("its end is missing");
  uint64_t count = number(bytes, end, 10, 2), entry = number(bytes, end, 16, 4);
  if (end >= 20 && bytes.compare(end - 20, 4, locator64_mark) == 0) {
    const auto end64 = number(bytes, end - 20, 8, 8);
    if (number(bytes, end64, 0, 4) != end64_number)
      throw Damaged("its end is damaged");
    count = number(bytes, end64, 32, 8);
    entry = number(bytes, end64, 48, 8);
  }
  std::map<std::string, uint32_t> found;
  for (uint64_t k = 0; k < count; ++k) {
    if (number(bytes, entry, 0, 4) != entry_number)
      throw Damaged("its directory is damaged");
    const auto name_size = number(bytes, entry, 28, 2);
    const auto size = 46 + name_size + number(bytes, entry, 30, 2) + number(bytes, entry, 32, 2);
    check_bytes(bytes, entry, size);
    found[bytes.substr(entry + 46, name_size)] = static_cast<uint32_t>(number(bytes, entry, 16, 4));
    entry += size;
  }
  return found;
}

uint32_t checksum(const void *data, size_t size) {
  static const auto table = [] {
    std::array<uint32_t, 256> values{};
    for (uint32_t n = 0; n < values.size(); ++n) {
      values[n] = n;
      for (int bit = 0; bit < 8; ++bit)
        values[n] = values[n] & 1 ? 0xEDB88320u ^ (values[n] >> 1) : values[n] >> 1;
    }
    return values;
  }();
  uint32_t value = 0xFFFFFFFFu;
  const auto *byte = static_cast<const unsigned char *>(data);
  for (const auto *last = byte + size; byte != last; ++byte)
    value = table[(value ^ *byte) & 0xFF] ^ (value >> 8);
  return value ^ 0xFFFFFFFFu;
}

// Torch does not compare checksums: changed weights would go unnoticed.
void check_whole(const std::string &path, PyTorchStreamReader &reader) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  const auto expected = checksums(bytes);
  const auto records = reader.getAllRecords();
  for (const auto &record : records) {
    const auto [data, size] = reader.getRecord(record);
    const auto found = std::find_if(expected.begin(), expected.end(), [&](const auto &entry) {
      const auto slash = entry.first.find('/');
      return slash != std::string::npos && entry.first.substr(slash + 1) == record;
    });
    if (found == expected.end() || found->second != checksum(data.get(), size))
      throw Damaged("wrong checksum of " + record);
  }
}

Metadata parse(const std::string &text) {
  Metadata metadata;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string key;
    words >> key;
    if (key == "format_version")
      words >> metadata.format_version;
    else if (key == "package_version")
      words >> metadata.package_version;
    else if (key == "dtype")
      words >> metadata.dtype;
    else if (key == "cutoff")
      words >> metadata.cutoff;
    else if (key == "interaction_range")
      words >> metadata.interaction_range;
    else if (key == "orientations")
      words >> metadata.orientations;
    else if (key == "bytes_per_token")
      words >> metadata.bytes_per_token;
    else if (key == "max_charge")
      words >> metadata.max_charge;
    else if (key == "max_spin_multiplicity")
      words >> metadata.max_spin_multiplicity;
    else if (key == "subtracted")
      std::getline(words >> std::ws, metadata.subtracted);
    else if (key == "uncertainty")
      words >> metadata.uncertainty_members >> metadata.uncertainty_size;
    else if (key == "results") {
      for (Declaration result; words >> result.name;) {
        if (!(words >> result.rank))
          result.rank = -1; // makes no sense
        metadata.results.push_back(result);
      }
    } else if (key == "species") {
      for (std::string z; words >> z;) // what is no number becomes no element
        metadata.species.push_back(std::strtoll(z.c_str(), nullptr, 10));
    }
  }
  return metadata;
}

bool makes_sense(const Metadata &metadata) {
  const auto is_element = [](int64_t z) {
    return 0 < z && z < static_cast<int64_t>(symbols.size());
  };
  const auto has_rank = [](const Declaration &result) {
    return 0 <= result.rank && result.rank <= 2;
  };
  return std::all_of(metadata.results.begin(), metadata.results.end(), has_rank) &&
         metadata.cutoff > 0.0 && metadata.interaction_range > 0 && !metadata.species.empty() &&
         std::all_of(metadata.species.begin(), metadata.species.end(), is_element) &&
         is_precision(metadata.dtype) && metadata.bytes_per_token > 0.0 &&
         !metadata.orientations.empty();
}

void check(const std::string &path, const Metadata &metadata) {
  const std::string written = path + ": written in format " +
                              std::to_string(metadata.format_version) + " by pet_mlip " +
                              metadata.package_version;
  if (metadata.format_version < 1)
    throw Error(path + ": its metadata are damaged; export the model again");
  if (metadata.format_version > our_format)
    throw Error(written + ", but this pair style reads formats up to " + std::to_string(our_format) +
                "; update pet_mlip and build the plugin again");
  if (metadata.format_version < oldest_format)
    throw Error(written + ", whose network is another than this version's; train again, or "
                          "convert metatrain's checkpoint again");
  if (!makes_sense(metadata))
    throw Error(path + ": its metadata are damaged; export the model again");
  if (metadata.orientations != "none")
    throw Error(path + " asks for an average over orientations of the whole structure (" +
                metadata.orientations +
                "), which only the ASE calculator takes; to run it in LAMMPS as it "
                "is, write it again with --symmetrization none");
}

} // namespace

bool rounds(const std::string &dtype) {
  return dtype == "tf32" || dtype == "bf16-mixed";
}

bool is_precision(const std::string &dtype) {
  return dtype == "float64" || dtype == "float32" || dtype == "tf32" || dtype == "bf16-mixed";
}

Metadata read_metadata(const std::string &path) {
  if (!std::filesystem::is_regular_file(path))
    throw Error("there is no model file " + path);
  std::string text;
  try {
    PyTorchStreamReader reader(path);
    if (reader.hasRecord(lines_record) && reader.hasRecord(json_record)) {
      const auto [data, size] = reader.getRecord(lines_record);
      text.assign(static_cast<const char *>(data.get()), size);
      check_whole(path, reader);
    }
  } catch (const Damaged &damage) {
    throw Error(path + " is not a pet_mlip model, or a file cut short (" + damage.what() +
                "); export it again with 'pet-mlip export'");
  } catch (const std::exception &) { // torch's, or sizes for which there is no memory
    throw Error(path + " is not a pet_mlip model, or a file cut short; export it again with "
                       "'pet-mlip export'");
  }
  if (text.empty())
    throw Error(path + " is not a model for this pair style; write one with 'pet-mlip export'");
  const Metadata metadata = parse(text);
  check(path, metadata);
  return metadata;
}

} // namespace pet
