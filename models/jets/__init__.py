"""Jets: quark/gluon and WZ decay-plane data, their readers, generators and shipped samples."""
