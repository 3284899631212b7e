#ifndef BITSEARCH_MONOTONE_SPLINE_OP_H_
#define BITSEARCH_MONOTONE_SPLINE_OP_H_

#include <onnxruntime_c_api.h>

namespace bitsearch {

const OrtCustomOp& MonotoneSplineOp();

}  // namespace bitsearch

#endif  // BITSEARCH_MONOTONE_SPLINE_OP_H_
