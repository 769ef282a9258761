// SPDX-License-Identifier: Apache-2.0
// FlatBuffers' own C++ verifier, with the code that its own compiler made from the schema.
#include "fedmote_generated.h"

extern "C" bool official_accepts(const uint8_t *bytes, size_t size) {
  flatbuffers::Verifier verifier(bytes, size);
  return fedmote::wire::VerifyMessageBuffer(verifier);
}
