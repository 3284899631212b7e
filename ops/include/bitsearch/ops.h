/* The operators of com.bithep for programs that link libbitsearch_ops.so
   instead of giving its path to RegisterCustomOpsLibrary. */
#ifndef BITSEARCH_OPS_H_
#define BITSEARCH_OPS_H_

#include <onnxruntime_c_api.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Makes sessions with these options run the operators; a second time does
   nothing. The status is null, or tells why and is the caller's to release. */
OrtStatus* RegisterCustomOps(OrtSessionOptions* options,
                             const OrtApiBase* base);

#ifdef __cplusplus
}
#endif

#endif /* BITSEARCH_OPS_H_ */
