//go:build cgo && opencv

#ifndef ROLLCALL_DNN_H
#define ROLLCALL_DNN_H

#ifdef __cplusplus
extern "C" {
#endif

// Every call returns NULL, or the text of what went wrong; the caller frees
// it. No C++ exception leaves these functions.

// dnn_threads sets how many threads OpenCV uses in this process.
char *dnn_threads(int n);

// dnn_load reads an ONNX net from a path. The caller closes *net.
char *dnn_load(const char *path, void **net);
void dnn_close(void *net);

typedef struct {
	float *data; // count values; the caller frees it
	int count;
	int width; // size of the last dimension
} dnn_output;

// dnn_forward feeds one 8-bit picture, a cv::Mat of the net's input size, as
// (x-mean)*scale with red and blue exchanged if swap is set, and gives all
// outputs of the net in its order: at most max, *found of them.
char *dnn_forward(void *net, void *picture, double mean, double scale, int swap,
                  dnn_output *outputs, int max, int *found);

#ifdef __cplusplus
}
#endif

#endif
