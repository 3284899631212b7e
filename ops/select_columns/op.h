#ifndef BITSEARCH_SELECT_COLUMNS_OP_H_
#define BITSEARCH_SELECT_COLUMNS_OP_H_

#include <onnxruntime_c_api.h>

namespace bitsearch {

const OrtCustomOp& SelectColumnsOp();

}  // namespace bitsearch

#endif  // BITSEARCH_SELECT_COLUMNS_OP_H_
