#ifndef BITSEARCH_REPRODUCIBLE_OP_H_
#define BITSEARCH_REPRODUCIBLE_OP_H_

#include <onnxruntime_c_api.h>

#include <vector>

namespace bitsearch {

// All operators of this folder.
std::vector<const OrtCustomOp*> ReproducibleOps();

}  // namespace bitsearch

#endif  // BITSEARCH_REPRODUCIBLE_OP_H_
