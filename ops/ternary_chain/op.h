#ifndef BITSEARCH_TERNARY_CHAIN_OP_H_
#define BITSEARCH_TERNARY_CHAIN_OP_H_

#include <onnxruntime_c_api.h>

#include <vector>

namespace bitsearch {

// TernaryChain2, TernaryChain3, ...
const std::vector<const OrtCustomOp*>& TernaryChainOps();

}  // namespace bitsearch

#endif  // BITSEARCH_TERNARY_CHAIN_OP_H_
