#ifndef BITSEARCH_MESSAGE_PASSING_OP_H_
#define BITSEARCH_MESSAGE_PASSING_OP_H_

#include <onnxruntime_c_api.h>

namespace bitsearch {

const OrtCustomOp& MessagePassingOp();

}  // namespace bitsearch

#endif  // BITSEARCH_MESSAGE_PASSING_OP_H_
