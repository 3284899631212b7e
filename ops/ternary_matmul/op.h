#ifndef BITSEARCH_TERNARY_MATMUL_OP_H_
#define BITSEARCH_TERNARY_MATMUL_OP_H_

#include <onnxruntime_c_api.h>

namespace bitsearch {

const OrtCustomOp& TernaryMatMulOp();

}  // namespace bitsearch

#endif  // BITSEARCH_TERNARY_MATMUL_OP_H_
