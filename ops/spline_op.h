#ifndef BITSEARCH_SPLINE_OP_H_
#define BITSEARCH_SPLINE_OP_H_

#include <onnxruntime_c_api.h>

namespace bitsearch {

const OrtCustomOp& MonotoneSplineOp();

}  // namespace bitsearch

#endif  // BITSEARCH_SPLINE_OP_H_
